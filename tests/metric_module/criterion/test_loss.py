"""Loss of given triplets, compared with torch's own function."""

from __future__ import annotations

import pytest
import torch

from metric_module import UserError, triplet_loss
from metric_module.distances import Euclidean


@pytest.mark.parametrize("margin", [0.05, 0.4, 2.0])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_equals_torch_on_explicit_triplets(margin: float, reduction: str) -> None:
    generator = torch.Generator().manual_seed(0)
    anchor, positive, negative = torch.randn(3, 50, 3, generator=generator, dtype=torch.float64)

    def rowwise(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return (left - right).square().sum(dim=1).sqrt()

    torchs = torch.nn.TripletMarginWithDistanceLoss(distance_function=rowwise, margin=margin, reduction=reduction)
    expected = torchs(anchor, positive, negative)
    distance = Euclidean()
    d_ap, d_an = distance(anchor, positive).diagonal(), distance(anchor, negative).diagonal()
    losses = triplet_loss(d_ap, d_an, margin)
    ours = {"mean": losses.mean(), "sum": losses.sum(), "none": losses}[reduction]
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    assert 0 < (losses > 0).sum() < 50 or margin == 2.0


def test_soft_is_softplus_and_finite_far_out() -> None:
    d_ap = torch.tensor([0.0, 1.0, 1e4, -1e4], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(4, dtype=torch.float64)
    losses = triplet_loss(d_ap, zero, 0.0, "soft")
    torch.testing.assert_close(losses[:2], torch.log1p(torch.exp(d_ap[:2])))
    assert losses[2] == 1e4
    assert losses[3] == 0
    torch.autograd.backward(losses.sum())
    assert d_ap.grad is not None
    torch.testing.assert_close(d_ap.grad, torch.tensor([0.5, 0.7310585786300049, 1.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("margin", "loss", "message"),
    [
        (0.0, "hinge", "margin: expected a number > 0 for the hinge loss, got 0.0"),
        (-1.0, "soft", r"margin: expected a number >= 0 for the soft loss, got -1\.0"),
        (0.1, "hing", "loss: expected one of hinge, soft, got 'hing'"),
    ],
)
def test_refuses_what_is_not_allowed(margin: float, loss: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        triplet_loss(torch.zeros(1), torch.zeros(1), margin, loss)
