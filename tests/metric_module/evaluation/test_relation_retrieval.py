"""Compare retrieval in a relation with a naive count; blocks, order of rows and processes do not matter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from metric_module import UserError
from metric_module.distances import Cosine, Distance, DotProduct, Euclidean, Manhattan
from metric_module.evaluation import (
    PairRetrievalMetric,
    RetrievalMetric,
    Sought,
    pair_retrieval_metrics,
)
from metric_module.relations import Links, SharedLabels
from tests.helpers.blocks import small_blocks
from tests.helpers.processes import on_ranks
from tests.oracles.pair_retrieval import naive_pair_metrics

AT = (1, 3, 10)
DISTANCES: list[type[Distance]] = [Euclidean, Cosine, DotProduct, Manhattan]


def case(queries: int = 37, references: int = 53, ties: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw embeddings with many ties, and overlapping masks of positives and of ignored references."""
    draw = torch.Generator().manual_seed(7)
    rows = torch.randn(queries, 3, generator=draw), torch.randn(references, 3, generator=draw)
    if ties:
        rows = (rows[0] * 2).round() / 2 + 0.125, (rows[1] * 2).round() / 2
    positive = torch.rand(queries, references, generator=draw) < torch.linspace(0, 0.4, queries)[:, None]
    ignored = torch.rand(queries, references, generator=draw) < 0.3
    return *rows, positive, ignored


def links(mask: Tensor) -> Links:
    row, column = mask.nonzero().unbind(1)
    return Links.of(row, column, len(mask))


@pytest.mark.parametrize(
    ("distance", "ties"),
    # Rows in the same direction need not come to the very same unit vector.
    [(kind, ties) for kind in DISTANCES for ties in (True, False) if not (ties and kind is Cosine)],
)
def test_against_a_naive_count(distance: type[Distance], ties: bool) -> None:
    query, reference, positive, ignored = case(ties=ties)
    figures = pair_retrieval_metrics(
        query, reference, links(positive), ignored=links(ignored), distance=distance(), at=AT
    )
    matrix = distance()(query.double(), reference.double())
    expected = naive_pair_metrics(matrix, positive, ignored & ~positive, AT, lambda d, limit: d <= limit + 1e-6)
    assert figures == pytest.approx(expected, rel=1e-12)
    assert 0.05 < expected["recall_at_10"] < 0.9
    assert expected["queries_without_positive"] > 0
    assert len({round(expected[name], 6) for name in ("recall_at_3", "hit_rate_at_3", "ndcg_at_3", "map", "mrr")}) == 5


def test_blocks_rows_and_ranks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    query, reference, positive, ignored = case()

    def figures(rows: Tensor, columns: Tensor, distance: Distance) -> dict[str, float]:
        masks = (links(mask[rows][:, columns]) for mask in (positive, ignored))
        near, out = masks
        return pair_retrieval_metrics(query[rows], reference[columns], near, ignored=out, distance=distance, at=AT)

    for distance in (Euclidean(), DotProduct()):
        whole = figures(torch.arange(37), torch.arange(53), distance)
        draw = torch.Generator().manual_seed(0)
        assert figures(torch.randperm(37, generator=draw), torch.randperm(53, generator=draw), distance) == whole
        with small_blocks(queries=5, cells=60):
            assert figures(torch.arange(37), torch.arange(53), distance) == whole


def test_a_constant_embedding_gains_nothing() -> None:
    _, _, positive, _ = case()
    same = torch.ones(37, 2), torch.ones(53, 2)
    figures = pair_retrieval_metrics(*same, links(positive & (torch.arange(53) < 30)), at=(10,))
    assert figures["recall_at_10"] == figures["ndcg_at_10"] == 0.0
    assert 0 < figures["mrr"] < 1 / 20


def sought(part: Tensor) -> Sought:
    _, _, positive, ignored = case()
    return Sought(torch.arange(37), 100 + torch.arange(53)[part], links(positive[:, part]), links(ignored[:, part]))


def batches() -> list[tuple[Tensor, Tensor]]:
    query, reference, *_ = case()
    ids = torch.cat([torch.arange(37), 100 + torch.arange(53)])
    rows = torch.cat([query, reference])
    return [(rows[first : first + 7], ids[first : first + 7]) for first in range(0, len(ids), 7)]


def on_a_rank() -> dict[str, float]:
    """Compute the figures from every world_size-th batch; the last process adds the first batch again."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    metric = PairRetrievalMetric(at=AT, both_ways=True)
    metric.sought = sought(torch.arange(53))
    for embeddings, ids in [*batches()[rank::ranks], *(batches()[:1] if rank == ranks - 1 else [])]:
        metric.update(embeddings, ids, ids)
    return metric.compute()


def test_many_processes(tmp_path: Path) -> None:
    query, reference, positive, ignored = case()
    figures = on_a_rank()
    there = pair_retrieval_metrics(query, reference, links(positive), ignored=links(ignored), at=AT)
    back = pair_retrieval_metrics(reference, query, links(positive.T), ignored=links(ignored.T), at=AT)
    assert back["map"] != there["map"] and back["queries"] != there["queries"]
    assert figures == there | {f"reverse_{name}": value for name, value in back.items()}
    assert on_ranks(on_a_rank, 2, tmp_path) == [figures, figures]


def test_a_part_of_the_samples() -> None:
    query, reference, positive, ignored = case()
    metric = PairRetrievalMetric(at=AT)
    metric.sought = sought(torch.arange(53))
    for embeddings, ids in batches()[:2] + batches()[-4:]:
        metric.update(embeddings, ids, ids)
    kept = torch.cat([ids for _, ids in batches()[-4:]]) - 100
    expected = pair_retrieval_metrics(
        query[:14], reference[kept], links(positive[:14, kept]), ignored=links(ignored[:14, kept]), at=AT
    )
    assert metric.compute() == expected
    metric.reset()
    metric.update(*batches()[0], batches()[0][1])
    assert metric.compute() == {}
    assert metric.left_out[0].startswith("PairRetrievalMetric: evaluation: expected queries and references")
    assert metric.left_out[0].endswith("got 7 and 0")


def test_data_of_the_other_kind_is_rejected() -> None:
    x, ids = torch.randn(4, 2), torch.arange(4)
    pairs, classes = PairRetrievalMetric(), RetrievalMetric()
    classes.sought = sought(torch.arange(53))
    for metric, message in (
        (pairs, "measures relations, and this data has classes; give evaluation=retrieval"),
        (classes, "measures classes, and this data has relations; give evaluation=pair_retrieval"),
    ):
        metric.update(x, ids // 2, ids)
        with pytest.raises(UserError, match=f"^evaluation: {type(metric).__name__} {message}"):
            metric.compute()


def test_mistakes() -> None:
    query, reference, positive, _ = case()
    with pytest.raises(UserError, match=r"^positives: expected a list for each of 37 queries, got 36$"):
        pair_retrieval_metrics(query, reference, links(positive[1:]))
    with pytest.raises(UserError, match=r"^positives: expected references in \[0, 40\), got 52$"):
        pair_retrieval_metrics(query, reference[:40], links(positive))
    with pytest.raises(
        UserError, match=r"^positives: expected a query with a reference that belongs to it, got none of 37"
    ):
        pair_retrieval_metrics(query, reference, links(positive & False))
    with pytest.raises(UserError, match=r"^references: expected a tensor of shape \[N, 3\], got \(53, 2\)"):
        pair_retrieval_metrics(query, reference[:, :2], links(positive))
    with pytest.raises(UserError, match=r"^recall_at: expected different integers, 1 or more, got \[0\]"):
        pair_retrieval_metrics(query, reference, links(positive), at=(0,))


def test_shared_labels_are_a_relation() -> None:
    draw = torch.Generator().manual_seed(2)
    tags = torch.rand(30, 6, generator=draw) < 0.2
    relation = SharedLabels(links(tags))
    expected = (tags.float() @ tags.float().T > 0) & ~torch.eye(30, dtype=torch.bool)
    rows, columns = torch.tensor([4, 29, 0, 4]), torch.randperm(30, generator=draw)[:17]
    assert 100 < expected.sum() < 600
    assert torch.equal(relation.mask(rows, columns), expected[rows][:, columns])
    assert torch.equal(links(expected).mask(rows, columns), expected[rows][:, columns])
    assert torch.equal(relation.lists(rows).columns, links(expected[rows]).columns)
    some = SharedLabels(links(tags), among=torch.arange(20))
    assert torch.equal(some.lists(rows).columns, links(expected[rows][:, :20]).columns)


def test_links_refuse_what_are_none() -> None:
    with pytest.raises(UserError, match=r"^links: expected queries in \[0, 2\) and references from 0, got 0 to 2,"):
        Links.of(torch.tensor([0, 2]), torch.tensor([1, 1]), queries=2)
    with pytest.raises(
        UserError, match=r"^links: expected ascending int64 starts .* got torch.int64 \[2\] and torch.int64 \[3\]"
    ):
        Links(torch.tensor([0, 2]), torch.tensor([1, 2, 3]))
