"""Compare every distance with its definition in float64, also for near duplicates, zeros and half precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metric_module import distances as module
from metric_module.distances import SNR, Cosine, Distance, DotProduct, Euclidean, Manhattan, SquaredEuclidean
from metric_module.distances import euclidean as euclidean_module
from metric_module.functional import nonfinite_rows, unit
from tests.helpers.blocks import small_blocks
from tests.oracles.criterion import pair

ALL: list[type[Distance]] = [Euclidean, SquaredEuclidean, Cosine, Manhattan, DotProduct, SNR]


def rows(count: int, columns: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_every_distance_is_tested() -> None:
    shipped = {name for name in module.__all__ if name not in {"Distance", "EuclideanForm"}}
    assert shipped == {kind.__name__ for kind in ALL}


@pytest.mark.parametrize("kind", ALL)
def test_equals_its_definition(kind: type[Distance]) -> None:
    query, reference = rows(5), rows(7, seed=1)
    expected = torch.stack([torch.stack([pair(kind.__name__, q, r) for r in reference]) for q in query])
    assert expected.abs().min() > 0
    torch.testing.assert_close(kind()(query, reference), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ALL)
def test_gradcheck(kind: type[Distance]) -> None:
    query, reference = rows(4).requires_grad_(), rows(5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(kind(), (query, reference), eps=1e-7, atol=1e-6)
    near = (query.detach()[:2] + 1e-4 * rows(2, seed=3)).requires_grad_()
    if kind is not Manhattan:
        assert torch.autograd.gradcheck(kind(), (query, near), eps=1e-9, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ALL)
def test_single_pairs_have_the_gradient_of_all_distances(kind: type[Distance]) -> None:
    query, reference = rows(4), rows(12, seed=1)
    reference[0] = query[0]  # a pair at distance zero
    slope = rows(4, columns=3, seed=2)
    columns = torch.arange(12).view(4, 3)
    leaves = query.clone().requires_grad_(), reference.clone().requires_grad_()
    torch.autograd.backward((kind()(*leaves).gather(1, columns) * slope).sum())
    found = kind().paired_gradient(query[:, None], reference[columns], slope, [])
    assert found[0] is not None and found[1] is not None and leaves[0].grad is not None
    assert leaves[0].grad.abs().min() > 0
    torch.testing.assert_close(found[0][:, 0], leaves[0].grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[1].view(12, -1), leaves[1].grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        kind().paired(query[:, None], reference[columns]), kind()(query, reference).gather(1, columns)
    )


@pytest.mark.parametrize("kind", ALL)
def test_a_symmetric_distance_is_symmetric(kind: type[Distance]) -> None:
    values = rows(9)
    distances = kind()(values, values.clone())
    assert kind.symmetric == torch.allclose(distances, distances.T, rtol=1e-12)


@pytest.mark.parametrize("kind", ALL)
def test_a_set_compared_with_itself_has_the_gradient_of_both_sides(kind: type[Distance]) -> None:
    weight = rows(8, columns=8, seed=3)
    values = rows(8)
    values[1] = values[0] + 1e-9  # a close pair
    both, one = values.clone().requires_grad_(), values.clone().requires_grad_()
    torch.autograd.backward((kind()(one, one) * weight).sum())
    torch.autograd.backward((kind()(both, both.clone()) * weight).sum())
    torch.testing.assert_close(one.grad, both.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ALL)
def test_a_formula_may_build_on_the_one_that_it_overrides(kind: type[Distance]) -> None:
    def twice(self: Distance, query: Tensor, reference: Tensor) -> Tensor:
        return 2 * kind.forward(self, query, reference)

    doubled = type("Doubled", (kind,), {"forward": twice})
    query, reference = rows(3), rows(4, seed=1)
    assert torch.equal(doubled()(query, reference), 2 * kind()(query, reference))


def test_what_belongs_to_a_formula_is_not_inherited_with_another() -> None:
    class Doubled(Euclidean):
        """Overrides the formula alone."""

        def forward(self, query: Tensor, reference: Tensor) -> Tensor:
            return 2 * super().forward(query, reference)

    class Paired(Doubled):
        """Declares single pairs anew."""

        symmetric = True

        def paired(self, query: Tensor, reference: Tensor) -> Tensor:
            return 2 * super(Doubled, self).paired(query, reference)

    query, reference = rows(2), rows(3, seed=1)
    assert not Doubled().symmetric and not Doubled().has_pairs and Doubled().draft(query, reference).unsure is None
    with pytest.raises(NotImplementedError, match="Doubled does not define paired"):
        Doubled().paired(query, query)
    torch.testing.assert_close(Doubled().draft(query, reference).distances(), 2 * Euclidean()(query, reference))
    assert Paired().symmetric and Paired().has_pairs and Euclidean().has_pairs
    slope = torch.ones(2, 1, dtype=torch.float64)
    ours, theirs = (
        kind.paired_gradient(query[:, None], reference[:2, None], slope, []) for kind in (Paired(), Euclidean())
    )
    assert ours[0] is not None and theirs[0] is not None
    torch.testing.assert_close(ours[0], 2 * theirs[0])


@pytest.mark.parametrize("kind", [Euclidean, SquaredEuclidean, Cosine, Manhattan, SNR])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_self_distance_is_exactly_zero(kind: type[Distance], dtype: torch.dtype) -> None:
    values = rows(30, columns=64, dtype=dtype) + 100
    assert (kind()(values, values).diagonal() == 0).all()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("case", ["duplicates", "zeros", "1e-20 apart", "zero and one"])
def test_gradient_is_finite(kind: type[Distance], case: str) -> None:
    base = rows(4, dtype=torch.float32)
    values = {
        "duplicates": base[[0, 0, 1, 1]],
        "zeros": torch.zeros(4, 6),
        "1e-20 apart": torch.cat([torch.zeros(2, 6), torch.full((2, 6), 1e-20)]),
        "zero and one": torch.cat([torch.zeros(2, 6), torch.ones(2, 6)]),
    }[case].requires_grad_()
    result = kind()(values, values)
    torch.autograd.backward(result.sum())
    assert result.isfinite().all()
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert values.grad.abs().max() < 1e4


@pytest.mark.parametrize("apart", [1.4e-2, 1e-3, 1e-5])
def test_near_duplicates_keep_their_digits(apart: float) -> None:
    generator = torch.Generator().manual_seed(0)
    query = unit(torch.randn(64, 128, generator=generator)) + 3.0
    step = unit(torch.randn(64, 128, generator=generator)) * apart
    reference = query + step
    weight = torch.rand(64, 64, generator=generator)

    def run(dtype: torch.dtype, distance: object) -> tuple[Tensor, Tensor]:
        leaf = query.to(dtype).requires_grad_()
        result = distance(leaf, reference.to(dtype))  # type: ignore[operator]
        torch.autograd.backward((result.diagonal() * weight.to(dtype).diagonal()).sum())
        assert leaf.grad is not None
        return result.detach().double(), leaf.grad.double()

    exact, slope = run(torch.float64, lambda q, r: (q[:, None] - r[None]).square().sum(-1).sqrt())
    ours, gradient = run(torch.float32, Euclidean())
    error = ((ours - exact) / exact).abs()
    assert error.max() < 1e-5
    assert error.diagonal().max() < 1e-6
    assert ((gradient - slope).norm() / slope.norm()) < 1e-5


def test_the_direct_form_is_what_saves_near_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    query = unit(torch.randn(64, 128, generator=torch.Generator().manual_seed(0)))
    reference = query + 1e-4
    exact = (query.double()[:, None] - reference.double()[None]).square().sum(-1).sqrt().diagonal()

    def error() -> float:
        found = Euclidean()(query, reference).double().diagonal()
        return float(((found - exact) / exact).abs().max())

    assert error() < 1e-5
    monkeypatch.setitem(euclidean_module._CLOSE, torch.float32, -1.0)
    assert error() > 1e-3


def test_collapsed_embeddings_stay_within_memory_and_right() -> None:
    values = (torch.ones(12, 5) * torch.tensor([[1.0], [-1.0]]).repeat(6, 1)).requires_grad_()
    with small_blocks(close_pairs=7):
        result = Euclidean()(values, values)
        expected = torch.cdist(values.detach().double(), values.detach().double())
        torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=0)
        torch.autograd.backward(result.square().sum())
    exact = values.detach().double().requires_grad_()
    torch.autograd.backward((exact[:, None] - exact[None]).square().sum())
    assert values.grad is not None and exact.grad is not None
    torch.testing.assert_close(values.grad.double(), exact.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_float32(dtype: torch.dtype) -> None:
    values = rows(6, dtype=dtype)
    result = Euclidean()(values, values)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), torch.cdist(values.double(), values.double()), rtol=1e-5, atol=1e-6)


def test_a_distance_must_define_forward() -> None:
    with pytest.raises(NotImplementedError, match="Empty must define forward"):
        type("Empty", (Distance,), {})()(torch.zeros(1, 1), torch.zeros(1, 1))


def test_unit_has_no_infinite_gradient() -> None:
    values = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0]], requires_grad=True)
    result = unit(values)
    torch.testing.assert_close(result, torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.0, 0.0]]))
    torch.autograd.backward(result.sum())
    assert values.grad is not None
    assert values.grad[0].abs().max() > 0
    assert (values.grad[1:] == 0).all()
    assert unit(torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float16)).isfinite().all()


def test_unit_does_not_hide_a_nan() -> None:
    assert unit(torch.tensor([[1.0, float("nan")]])).isnan().all()


def test_nonfinite_rows() -> None:
    values = torch.tensor([[1.0, float("nan")], [0.0, 0.0], [float("inf"), 1.0]])
    assert nonfinite_rows(values).tolist() == [0, 2]
