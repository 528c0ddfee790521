"""Compare the retrieval metric over batches and processes with the function over all samples."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed

from metric_module import UserError, evaluation
from metric_module.distances import Distance, Manhattan
from metric_module.evaluation import (
    Gathered,
    MetricGroup,
    PerQuery,
    RetrievalMetric,
    VerificationMetric,
    retrieval_metrics,
    retrieval_per_query,
)
from tests.helpers.processes import CONTEXT

ROWS = 21
RERANK = {"k_reciprocal": {"k1": 3, "k2": 2}, "query_expansion": {"k": 2}}


def samples(rows: int = ROWS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return embeddings, labels, unordered ids, and groups."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) // 4 - 2
    embeddings = labels[:, None] + torch.randn(rows, 3, generator=generator)
    return embeddings, labels, torch.randperm(rows, generator=generator) * 2**40, torch.arange(rows) % 3


def fill(metric: RetrievalMetric, rows: Tensor, size: int, grouped: bool = True) -> RetrievalMetric:
    embeddings, labels, ids, groups = samples()
    for part in torch.split(rows, size):
        metric.update(embeddings[part], labels[part], ids[part], groups[part] if grouped else None)
    return metric


def expected(distance: Distance | None = None) -> dict[str, float]:
    embeddings, labels, ids, groups = samples()
    plain = retrieval_metrics(embeddings, labels, ids, distance=distance)
    across = retrieval_metrics(embeddings, labels, ids, groups=groups, distance=distance)
    assert plain["map"] != across["map"]
    assert 0 < across["recall_at_1"] < plain["recall_at_1"] < 1
    return plain | {f"cross_group_{name}": value for name, value in across.items()}


@pytest.mark.parametrize("size", [1, 5, 21])
@pytest.mark.parametrize("distance", [None, Manhattan()])
def test_figures_do_not_depend_on_batches_or_their_order(size: int, distance: Distance | None) -> None:
    for seed in range(3):
        rows = torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed))
        assert fill(RetrievalMetric(distance), rows, size).compute() == expected(distance)


def test_padding_is_dropped_by_id() -> None:
    rows = torch.cat([torch.arange(ROWS), torch.tensor([0, 0, 7])])
    metric = fill(RetrievalMetric(), rows, 6)
    assert metric.compute() == expected()
    embeddings, labels, ids, groups = samples()
    order = ids.argsort()
    gathered = metric.gathered()
    assert isinstance(gathered, Gathered)
    assert gathered.queries is None
    for got, want in zip(gathered[:4], (embeddings, labels, ids, groups), strict=True):
        assert got is not None
        assert torch.equal(got, want[order])


def test_without_groups_there_are_no_figures_across_groups() -> None:
    metric = fill(RetrievalMetric(recall_at=(2,)), torch.arange(ROWS), 8, grouped=False)
    embeddings, labels, ids, _ = samples()
    assert metric.compute() == retrieval_metrics(embeddings, labels, ids, recall_at=(2,))
    assert metric.gathered().groups is None


def test_reset_and_further_batches_are_seen() -> None:
    metric = fill(RetrievalMetric(), torch.arange(12), 6)
    first = metric.compute()
    fill(metric, torch.arange(12, ROWS), 5)
    assert metric.compute() == expected() != first
    metric.reset()
    assert fill(metric, torch.arange(12), 4).compute() == first


def test_half_precision_is_kept_as_float32() -> None:
    embeddings, labels, ids, _ = samples()
    metric = RetrievalMetric()
    metric.update(embeddings.bfloat16().requires_grad_(), labels.int(), ids)
    gathered = metric.gathered()
    assert gathered.embeddings.dtype == torch.float32
    assert gathered.labels.dtype == torch.int64
    assert not gathered.embeddings.requires_grad
    assert metric.compute() == retrieval_metrics(embeddings.bfloat16(), labels, ids)


def test_the_distance_stays_with_its_owner() -> None:
    class Learned(Manhattan):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

    metric = RetrievalMetric(Learned())
    assert not list(metric.parameters())
    assert not list(metric.children())
    assert not metric.state_dict()


def test_a_copy_works_alone() -> None:
    metric = fill(RetrievalMetric(Manhattan()), torch.arange(12), 6)
    clone = fill(copy.deepcopy(metric), torch.arange(12, ROWS), 6)
    revived = fill(pickle.loads(pickle.dumps(metric)), torch.arange(12, ROWS), 6)
    assert clone.compute() == revived.compute() == expected(Manhattan()) != metric.compute()


def check_per_query(found: PerQuery | None, rows: Tensor | None = None, gallery: Tensor | None = None) -> None:
    """Compare with the function on the samples in order of id, of which ``rows`` are the queries."""
    embeddings, labels, ids, _ = samples()
    order = ids.argsort()
    x, y, names = embeddings[order], labels[order], ids[order]
    if rows is None or gallery is None:
        expected = retrieval_per_query(x, y, names)
    else:
        expected = retrieval_per_query(
            x[rows], y[rows], names[rows], gallery=x[gallery], gallery_labels=y[gallery], gallery_ids=names[gallery]
        )
        expected = expected._replace(rows=rows[expected.rows])
    assert found is not None
    assert int(expected.first.min()) < int(expected.first.max())
    for got, want in zip(found, expected, strict=True):
        assert torch.equal(got, want)


def test_figures_of_each_query_are_kept_until_reset() -> None:
    metric = fill(RetrievalMetric(), torch.arange(ROWS), 8)
    assert metric.per_query is None
    metric.compute()
    check_per_query(metric.per_query)
    fill(metric, torch.tensor([0]), 1)
    assert metric.per_query is None, "another batch came"
    metric.compute()
    metric.reset()
    assert metric.per_query is None


def test_a_group_keeps_them_in_its_own_attribute() -> None:
    member = RetrievalMetric()
    group = MetricGroup([VerificationMetric(), member])
    embeddings, labels, ids, _ = samples()
    queries = torch.arange(ROWS) % 3 == 0
    group.update(embeddings, labels, ids, queries=queries)
    group.compute()
    asked = queries[ids.argsort()]
    check_per_query(group.per_query, asked.nonzero()[:, 0], (~asked).nonzero()[:, 0])
    assert member.per_query is None
    group.reset()
    assert group.per_query is None


def _rank(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    metric = RetrievalMetric(rerank=RERANK)
    share = -(-ROWS // world)
    rows = torch.arange(share * world).view(share, world)[:, rank] % ROWS
    fill(metric, rows, 3 if rank else share)
    local = len(torch.cat(metric.ids))
    gathered = metric.gathered()
    left = len(torch.cat(metric.ids))
    figures = metric.compute()
    torch.save((gathered, figures, local, left, metric.per_query), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    other = CONTEXT.Process(target=_rank, args=(1, 2, str(tmp_path)))
    other.start()
    _rank(0, 2, str(tmp_path))
    other.join(timeout=60)
    assert other.exitcode == 0
    one = fill(RetrievalMetric(rerank=RERANK), torch.arange(ROWS), 7)
    alone = one.gathered()
    for rank in range(2):
        gathered, figures, local, left, per_query = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        check_per_query(per_query)
        assert figures == one.compute() and expected().items() <= figures.items()
        assert local == left == 11
        for name, want in alone._asdict().items():
            assert want is None if name == "queries" else torch.equal(getattr(gathered, name), want)


def test_the_package_names_what_it_lacks() -> None:
    with pytest.raises(AttributeError, match=r"module 'metric_module.evaluation' has no attribute 'recall'"):
        evaluation.recall  # noqa: B018


def test_mistakes_are_named() -> None:
    embeddings, labels, ids, groups = samples()
    with pytest.raises(UserError, match=r"recall_at: expected different integers, 1 or more, got \[0\]"):
        RetrievalMetric(recall_at=(0,))
    metric = RetrievalMetric()
    with pytest.raises(UserError, match=r"expected at least one batch, got none; call update\(\) first"):
        metric.gathered()
    with pytest.raises(UserError, match=r"call update\(\) for each batch and compute\(\) at the end"):
        metric(embeddings, labels, ids)
    with pytest.raises(UserError, match=r"ids: expected a tensor of shape \[21\], .* got \(2,\)"):
        metric.update(embeddings, labels, ids[:2])
    with pytest.raises(UserError, match=r"embeddings: .* NaN or infinity in 21 of 21 rows .* ids \["):
        metric.update(embeddings * torch.nan, labels, ids)
    metric.update(embeddings, labels, ids)
    with pytest.raises(UserError, match=r"groups: .* every batch or in none, got them given here, not before"):
        metric.update(embeddings, labels, ids, groups)
    metric.update(embeddings, labels + 1, ids)
    with pytest.raises(UserError, match=r"ids: expected one label for each id, got labels -?\d and -?\d for id 0"):
        metric.gathered()
    metric.reset()
    metric.update(embeddings, labels, ids, groups)
    with pytest.raises(UserError, match=r"groups: .* every batch or in none, got them missing here, given before"):
        metric.update(embeddings, labels, ids)


def test_equal_ids_are_one_sample_up_to_rounding() -> None:
    embeddings, labels, ids, _ = samples()
    metric = RetrievalMetric()
    metric.update(embeddings, labels, ids)
    first = metric.gathered().embeddings
    metric.update(embeddings * 1.01, labels, ids)
    assert torch.equal(metric.gathered().embeddings, first)
    metric.update(embeddings[1:2] + 1, labels[1:2], ids[1:2])
    message = (
        rf"ids: expected one sample for each id, got different embeddings for id {int(ids[1])}; ids must be unique"
    )
    with pytest.raises(UserError, match=message):
        metric.gathered()


def test_an_empty_copy_shares_the_distance_alone() -> None:
    embeddings, labels, ids, _ = samples()
    metric = RetrievalMetric(Manhattan(), recall_at=(2,))
    metric.update(embeddings, labels, ids)
    copied = metric.empty_copy()
    assert copied.distance is metric.distance and copied.recall_at == (2,) and not copied.ids
    copied.update(embeddings, labels, ids)
    copied.update(embeddings, labels, ids + 1)
    assert len(metric.gathered().ids) == len(ids) and len(copied.gathered().ids) == 2 * len(ids)
