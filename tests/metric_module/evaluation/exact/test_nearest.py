"""The nearest neighbours are those of a stable sort of all float64 distances, whatever the blocks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metric_module import UserError
from metric_module.distances import SNR, Cosine, Distance, DotProduct, Euclidean, Manhattan, SquaredEuclidean
from metric_module.evaluation.exact import nearest as exact
from metric_module.evaluation.exact.any_distance import exact_distance
from metric_module.evaluation.exact.nearest import nearest
from metric_module.evaluation.exact.running_best import Nearest
from tests.helpers.blocks import small_blocks
from tests.helpers.points import near_ties
from tests.helpers.precision import LOWERED, Lowered
from tests.metric_module.evaluation.exact.test_any_distance import WithForm

DISTANCES = [None, Euclidean(), SquaredEuclidean(), Cosine(), DotProduct(), Manhattan(), SNR()]
SMALL = [{}, {"tile": 64, "segment": 4, "queries": 7}, {"tile": 600, "segment": 16}]


def expect(query: Tensor, gallery: Tensor, k: int, distance: Distance | None = None) -> Nearest:
    """Measure all pairs, and sort by distance and then position."""
    found = exact_distance(distance, query.device)(query.double(), gallery.double())
    distances, positions = found.sort(dim=1, stable=True)
    return Nearest(distances[:, :k], positions[:, :k])


def check_nearest(query: Tensor, gallery: Tensor, k: int, distance: Distance | None = None) -> None:
    expected = expect(query, gallery, k, distance)
    for sizes in SMALL:
        with small_blocks(**sizes):
            found = nearest(query, gallery, k, distance)
        assert found.distances.dtype == torch.float64 and found.positions.dtype == torch.int64
        assert torch.equal(found.positions, expected.positions)
        torch.testing.assert_close(found.distances, expected.distances, rtol=1e-14, atol=0)


def points(rows: int = 400, width: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(30, width, generator=generator), torch.randn(rows, width, generator=generator)


@pytest.fixture
def products_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("all distances were computed")

    monkeypatch.setattr(exact._Search, "_measure_all", fail)


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("k", [1, 10])
def test_every_distance(distance: Distance | None, k: int) -> None:
    check_nearest(*points(), k, distance)


def test_a_distance_with_a_form_of_its_own() -> None:
    check_nearest(*points(), 4, WithForm())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_type(dtype: torch.dtype) -> None:
    query, gallery = points()
    check_nearest(query.to(dtype), gallery.to(dtype), 5)
    check_nearest(query, gallery.to(dtype), 5, Cosine())


@pytest.mark.usefixtures("products_only")
@pytest.mark.parametrize("order", [slice(None), "ascending", "descending"])
def test_products_decide_in_any_order_of_the_gallery(order: str | slice) -> None:
    query, gallery = points(3000, 40)
    if isinstance(order, str):
        gallery = gallery[(gallery - query[0]).norm(dim=1).argsort(descending=order == "descending")]
    expected = expect(query, gallery, 10)
    for sizes in SMALL:
        with small_blocks(**sizes):
            assert torch.equal(nearest(query, gallery, 10).positions, expected.positions)


@pytest.mark.parametrize("distance", [None, Cosine(), Manhattan()])
def test_duplicates_are_ordered_by_position(distance: Distance | None) -> None:
    query, gallery = points()
    gallery[::3] = gallery[1]
    query[:5] = gallery[1]
    check_nearest(query, gallery, 12, distance)
    check_nearest(query, gallery[1].expand(300, 6), 12, distance)
    assert nearest(query, gallery[1].expand(300, 6), 3, distance).positions.tolist() == [[0, 1, 2]] * 30


@pytest.mark.parametrize("scale", [1e-37, 1e-25, 1e-12, 1e12, 1e25, 1e37])
def test_tiny_and_huge_numbers(scale: float) -> None:
    query, gallery = points(seed=3)
    check_nearest(query * scale, gallery * scale, 6)
    check_nearest(query, gallery * scale, 6)
    check_nearest(query * scale, gallery, 6)


def test_norms_of_every_size_in_one_gallery() -> None:
    query, gallery = points()
    check_nearest(query, gallery * torch.logspace(-30, 30, 400)[torch.randperm(400)][:, None], 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_from_the_origin(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    center = 10 * torch.randn(128, generator=generator, dtype=dtype)
    rows = center + 1e-4 * torch.randn(1500, 128, generator=generator, dtype=dtype)
    check_nearest(rows[:50], rows, 10)
    rows, _ = near_ties()
    check_nearest(rows[:50], rows[50:], 10)


@pytest.mark.usefixtures("products_only")
def test_the_mean_is_subtracted() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = 10 + 1e-4 * torch.randn(4000, 128, generator=generator)
    found = nearest(rows[:50], rows, 10)
    assert torch.equal(found.positions, expect(rows[:50], rows, 10).positions)
    assert bool((found.distances[:, 1] > 0).all())


def test_fewer_items_than_neighbours_and_none() -> None:
    query, gallery = points(7)
    check_nearest(query, gallery, 50)
    check_nearest(query, gallery[:1], 1)
    assert nearest(query, gallery[:0], 3).positions.shape == (30, 0)
    assert nearest(query[:0], gallery, 3).distances.shape == (0, 3)


def test_parts_of_a_gallery_and_wide_rows() -> None:
    query, gallery = points(1000, 300)
    expected = expect(query, gallery, 5)
    found = nearest(query, [gallery[:1], gallery[1:1], gallery[1:600], gallery[600:]], 5)
    assert torch.equal(found.positions, expected.positions)


@pytest.mark.parametrize("distance", [None, Cosine(), Manhattan()])
def test_an_item_is_left_out(distance: Distance | None) -> None:
    _, rows = points(60)
    matrix = exact_distance(distance, rows.device)(rows.double(), rows.double()).fill_diagonal_(torch.inf)
    skipped = torch.arange(60)
    skipped[7] = -1
    matrix[7, 7] = 0
    expected = matrix.sort(dim=1, stable=True)
    for sizes in SMALL:
        with small_blocks(**sizes):
            found = nearest(rows, rows, 60, distance, exclude=skipped)
        assert torch.equal(found.positions[:, :59], expected.indices[:, :59])
        assert found.positions[:, 59].tolist() == [-1] * 7 + [int(expected.indices[7, 59])] + [-1] * 52
        assert int(found.distances.isinf().sum()) == 59


@pytest.mark.parametrize("lowered", LOWERED)
def test_lower_precision_modes_do_not_reach_the_products(lowered: Lowered) -> None:
    query, gallery = points(2000, 64, seed=4)
    with lowered(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest(query, gallery, 9).positions, expect(query, gallery, 9).positions)


@pytest.mark.parametrize(
    ("change", "k", "message"),
    [
        (lambda q, g: (q, g), 0, "k: expected 1 or more neighbours, got 0"),
        (lambda q, g: (q[:, :4], g), 1, r"queries: expected a tensor of shape \[N, 6\], got \(30, 4\)"),
        (lambda q, g: (q.log(), g), 1, r"queries: .* NaN or infinity in \d+ of 30 rows \(first rows: \[0, 1"),
        (lambda q, g: (q, g.index_fill(0, torch.tensor([333]), torch.nan)), 1, "gallery: .* infinity in row 333"),
        (lambda q, g: (q, g.index_fill(0, torch.tensor([333]), torch.inf)), 1, "gallery: .* infinity in row 333"),
        (lambda q, g: (q, 1e160 * g.double()), 1, r"gallery: expected numbers below 1e150, got [\d.]+e\+160"),
        (lambda q, g: (1e160 * q.double(), g), 1, r"queries: expected numbers below 1e150, got [\d.]+e\+160"),
    ],
)
@pytest.mark.parametrize("distance", [None, Cosine(), Manhattan()])
def test_mistakes(
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], k: int, message: str, distance: Distance | None
) -> None:
    query, gallery = change(*points())
    if "1e150" in message:
        distance = None  # squares of unit vectors and sums of absolute values do not overflow
    with pytest.raises(UserError, match=message), small_blocks(tile=200):
        nearest(query, gallery, k, distance)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 40), st.booleans())
def test_the_order_of_rows_changes_positions_only(seed: int, k: int, rows: int, coarse: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, gallery = torch.randn(5, 3, generator=generator), torch.randn(rows, 3, generator=generator)
    if coarse:
        query, gallery = query.round(), gallery.round()
    order = torch.randperm(rows, generator=generator)
    with small_blocks(tile=16, segment=2, queries=2):
        first, second = nearest(query, gallery, k), nearest(query, gallery[order], k)
    assert torch.equal(first.distances, second.distances)
    assert torch.equal(first.positions, expect(query, gallery, k).positions)
    assert torch.equal(second.positions, expect(query, gallery[order], k).positions)
