"""SNR distance: properties that follow from its definition, and constant queries, which have no signal."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metric_module import TripletCriterion
from metric_module.distances import SNR
from metric_module.miners import All


def rows(count: int, seed: int = 0, columns: int = 8) -> Tensor:
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equals_the_ratio_of_variances() -> None:
    query, reference = rows(5), rows(7, seed=1)
    expected = (query[:, None] - reference).var(dim=2) / query.var(dim=1)[:, None]
    torch.testing.assert_close(SNR()(query, reference), expected, rtol=1e-12, atol=0)


def test_the_query_is_the_signal() -> None:
    """Check that it is not symmetric, and that neither an added constant nor scaling both rows changes it."""
    query, reference = rows(4), rows(4, seed=1)
    there, back = SNR()(query, reference), SNR()(reference, query)
    ratio = reference.var(dim=1)[:, None] / query.var(dim=1)
    torch.testing.assert_close(there, back.T * ratio.T, rtol=1e-12, atol=0)
    assert (there - back.T).abs().max() > 0.1
    torch.testing.assert_close(SNR()(query + 3, reference - 5), there, rtol=1e-12, atol=0)
    torch.testing.assert_close(SNR()(query * 7, reference * 7), there, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 1.0, 0.1, -300.0])
def test_a_constant_query_is_finite(dtype: torch.dtype, level: float) -> None:
    query = torch.full((1, 8), level, dtype=dtype).requires_grad_()
    reference = rows(3).to(dtype).requires_grad_()
    result = SNR()(query, reference)
    expected = reference.detach().double().var(dim=1, correction=0) / 1e-6
    torch.testing.assert_close(result[0].double(), expected, rtol=1e-4, atol=0)
    torch.autograd.backward(result.sum())
    for leaf in (query, reference):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all() and leaf.grad.abs().max() > 0


def test_gradient_of_a_constant_query_comes_from_the_noise_alone() -> None:
    query = torch.full((2, 8), 0.5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(SNR(), (query, rows(3).requires_grad_()), eps=1e-7, atol=0.1, rtol=1e-4)


def test_near_duplicates_keep_their_digits() -> None:
    query = (rows(32, columns=64) + 10).float()
    reference = query + 1e-3 * rows(32, seed=1, columns=64).float()
    noise = (reference.double() - query.double()).var(dim=1)
    expected = noise / query.double().var(dim=1)
    found = SNR()(query, reference).diagonal().double()
    assert ((found - expected) / expected).abs().max() < 1e-3
    plain = (query.square().sum(1) + reference.square().sum(1) - 2 * (query * reference).sum(1)).double() / 64
    assert ((plain - noise) / noise).abs().max() > 1, "what the product form would give"


def test_trains_through_the_criterion_with_a_constant_row() -> None:
    embeddings = torch.cat([rows(7), torch.ones(1, 8, dtype=torch.float64)]).requires_grad_()
    output = TripletCriterion(SNR(), All(), 0.2, "soft")(embeddings, torch.arange(8) % 2)
    output.loss.backward()
    assert output.loss.isfinite() and output.loss > 0
    assert embeddings.grad is not None and embeddings.grad.isfinite().all()
