"""Figures depend on the data only: not on blocks, the order of rows or the precision of products."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from metric_module.distances import Cosine, Distance, DotProduct, Manhattan
from metric_module.evaluation import retrieval_metrics
from metric_module.evaluation.exact import rounding
from metric_module.evaluation.exact.counting import count_at_least
from metric_module.evaluation.exact.rounding import pair_distances
from tests.helpers.blocks import small_blocks
from tests.helpers.points import check_same, cloud, expect, grid, near_ties, side
from tests.helpers.precision import LOWERED, Lowered
from tests.oracles import retrieval as oracle
from tests.oracles.retrieval import retrieval_figures


def test_a_hundred_exact_duplicates_tie() -> None:
    x, labels = cloud(rows=180, seed=4)
    x[20:120] = x[20]
    check_same(retrieval_metrics(x, labels), expect(x, labels))
    check_same(retrieval_metrics(x, labels, distance=Manhattan()), expect(x, labels, distance=oracle.manhattan))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
@pytest.mark.parametrize("distance", [None, Cosine(), DotProduct(), Manhattan()])
def test_a_constant_embedding_gains_nothing(value: float, distance: Distance | None) -> None:
    labels = torch.arange(3000) // 2
    figures = retrieval_metrics(torch.full((3000, 7), value), labels, distance=distance)
    assert figures["recall_at_10"] == figures["r_precision"] == figures["map_at_r"] == 0
    assert figures["mrr"] == figures["map"] == pytest.approx(1 / 2999)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_type(dtype: torch.dtype) -> None:
    x, labels = cloud(seed=6)
    check_same(retrieval_metrics(x.to(dtype), labels), expect(x.to(dtype), labels))


@pytest.mark.parametrize("distance", [None, Cosine()])
def test_what_float32_products_cannot_tell_is_settled(distance: Distance | None) -> None:
    x, labels = near_ties()
    measure = oracle.cosine if distance else oracle.euclidean
    check_same(retrieval_metrics(x, labels, distance=distance), expect(x, labels, distance=measure))


@pytest.mark.parametrize(("near", "far"), [(1.0, 1000.0), (1000.0, 1.0)])
def test_queries_may_be_far_from_the_gallery(near: float, far: float) -> None:
    gallery, labels = near_ties()
    query = near * (gallery - 100) + far
    gallery = gallery - 100
    expected = retrieval_figures(side(query, labels), side(gallery, labels))
    assert 0 < expected["map_at_r"] < expected["mrr"] < 1
    check_same(retrieval_metrics(query, labels, gallery=gallery, gallery_labels=labels), expected)


@pytest.mark.parametrize("width", [127, 128, 129, 300])
def test_wide_embeddings(width: int) -> None:
    x, labels = cloud(width=width, seed=16, noise=8)
    check_same(retrieval_metrics(x, labels), expect(x, labels))


class Noisy(Manhattan):
    """Manhattan distance with rounding errors far larger than those of float64, which differ from call to call."""

    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        exact = super().forward(query, reference)
        return exact * (1 + 1e-9 * torch.rand_like(exact)) + 1e-13 * torch.rand_like(exact)


def test_rounding_in_a_custom_distance_does_not_break_ties() -> None:
    x, labels = grid(seed=15)
    x[::3] = x[1]
    check_same(retrieval_metrics(x, labels, distance=Noisy()), expect(x, labels, distance=oracle.manhattan))


def test_a_collapsed_embedding_is_not_settled_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    settled = []

    def count(query: Tensor, gallery: Tensor) -> Tensor:
        settled.append(len(query))
        return pair_distances(query, gallery)

    monkeypatch.setattr(rounding, "pair_distances", count)
    x, labels = torch.eye(2)[torch.arange(2000) % 2], torch.arange(2000) // 4
    figures = retrieval_metrics(x, labels)
    assert figures["recall_at_10"] == 0 < figures["map"] < 0.01
    assert sum(settled) <= 2000 * 4


@pytest.mark.parametrize("scale", [1e-37, 1e-25, 1e25, 1e37])
def test_the_scale_of_the_embedding_does_not_matter(scale: float) -> None:
    x, labels = cloud(seed=8)
    check_same(retrieval_metrics(x * scale, labels), expect(x * scale / scale, labels))


@pytest.mark.parametrize("lowered", LOWERED)
def test_lower_precision_modes_do_not_reach_the_products(lowered: Lowered) -> None:
    x, labels = cloud(rows=200, width=64, classes=90, seed=9, noise=3)
    expected = expect(x, labels)
    with lowered(), torch.autocast("cpu", dtype=torch.bfloat16):
        check_same(retrieval_metrics(x, labels), expected)


BLOCKS = [(3, 64, 4, 32), (100, 1 << 9, 16, 16), (1024, 1 << 22, 2048, 2048)]


@pytest.mark.parametrize("many", [2, 24])
@pytest.mark.parametrize("points", [cloud, grid, near_ties])
@pytest.mark.parametrize("distance", [None, Cosine(), DotProduct()])
def test_block_sizes_do_not_show(
    points: Callable[..., tuple[Tensor, Tensor]],
    many: int,
    distance: Distance | None,
) -> None:
    x, labels = points(seed=11)
    found = [retrieval_metrics(x, labels, distance=distance)]
    for queries, cells, segment, tile in BLOCKS:
        with small_blocks(queries=queries, cells=cells, segment=segment, tile=tile, positives=many):
            found.append(retrieval_metrics(x, labels, distance=distance))
    assert all(figures == found[0] for figures in found)
    assert 0 < found[0]["map_at_r"] < 1


@pytest.mark.parametrize("points", [cloud, grid, near_ties])
@pytest.mark.parametrize("distance", [None, Cosine(), Manhattan(), DotProduct()])
def test_the_order_of_rows_does_not_show(
    points: Callable[..., tuple[Tensor, Tensor]], distance: Distance | None
) -> None:
    x, labels = points(seed=12)
    groups = torch.arange(len(x)) % 4
    found = retrieval_metrics(x, labels, groups=groups, distance=distance)
    for seed in range(3):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        assert found == retrieval_metrics(x[order], labels[order], order * 7, groups=groups[order], distance=distance)


@pytest.mark.parametrize("many", [0, 24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_count_at_least(many: int, dtype: torch.dtype) -> None:
    values = torch.randint(-5, 5, (33, 70), generator=torch.Generator().manual_seed(0)).to(dtype)
    values[:, 5] = -torch.inf
    thresholds = torch.tensor([[0.0, -6.0, 6.0, torch.inf, 2.5, -torch.inf]], dtype=dtype).expand(33, -1)
    with small_blocks(positives=many):
        assert torch.equal(count_at_least(values, thresholds), (values[:, :, None] >= thresholds[:, None]).sum(dim=1))
