"""Distance weighted sampling: the probabilities of the paper, and rejected input."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from metric_module import TripletCriterion, UserError
from metric_module.distances import Cosine, Euclidean
from metric_module.functional import unit
from metric_module.miners import DistanceWeighted, Semihard


def probabilities(distances: list[float], dimension: int, cutoff: float, far: float) -> list[float]:
    """Wu et al. 2017, equation 4 and section 3.1, number by number."""
    weights = []
    for d in distances:
        clamped = max(d, cutoff)
        density = clamped ** (dimension - 2) * (1 - clamped**2 / 4) ** ((dimension - 3) / 2)
        weights.append(1 / density if d < far else 0.0)
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("dimension", [3, 8, 16])
def test_frequencies_are_the_papers(dimension: int) -> None:
    wanted = torch.tensor([0.2, 0.5, 0.7, 0.9, 1.1, 1.3, 1.39, 1.5])  # to the anchor, from 7 negatives and one beyond
    draws = 20_000
    distances = torch.cat([torch.tensor([[0.3]]), wanted[None]], dim=1).expand(draws, 9)  # (A, M)
    positive = torch.tensor([True] + [False] * 8).expand(draws, 9)
    miner = DistanceWeighted()
    miner.check(Euclidean(), torch.eye(dimension))
    numbers = torch.rand(draws, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    anchor, chosen, negative = miner.select(distances, positive, ~positive, 0.2, lambda n: numbers)
    assert (chosen == 0).all() and len(anchor) == draws
    frequency = torch.bincount(negative, minlength=9)[1:] / draws
    expected = torch.tensor(probabilities(wanted.tolist(), dimension, 0.5, 1.4))
    assert expected[-1] == 0 and frequency[-1] == 0
    assert expected[0] == expected[1]
    assert (frequency - expected).abs().max() < 4 * math.sqrt(0.25 / draws)


def test_one_negative_for_each_pair_of_anchors_within_reach() -> None:
    embeddings = unit(torch.tensor([[1.0, 0, 0], [1, 0.1, 0], [0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [-1, 0, 0]]))
    labels = torch.tensor([0, 0, 0, 1, 1])
    output = TripletCriterion(Euclidean(), DistanceWeighted(), 0.3)(embeddings, labels)
    # Six pairs of the first class, one of class 1: row 4 has every negative beyond the cut-off.
    assert output.census.selected == 7


@pytest.mark.parametrize("dimension", [64, 512, 2048])
def test_two_close_classes_leave_the_other_anchors_their_triplets(dimension: int) -> None:
    """The weights of one batch span more than a float holds; those of one anchor do not matter to another."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(32, dimension, generator=draw) + torch.randn(1, dimension, generator=draw)
    centres[1] = centres[0] + 0.1 * torch.randn(dimension, generator=draw)
    labels = torch.arange(32).repeat_interleave(4)
    samples = unit(centres[labels] + 0.3 * torch.randn(128, dimension, generator=draw))
    census = TripletCriterion(Euclidean(), DistanceWeighted(), margin=0.4)(samples, labels).census
    assert torch.cdist(samples[:4], samples[4:8]).min() < 0.5
    assert torch.cdist(samples[8:12], samples[12:]).min() > 0.7
    assert (census.selected, census.anchors, census.lone_anchors) == (128 * 3, 128, 0)


def test_the_largest_number_below_one_still_picks_a_negative() -> None:
    distances = torch.tensor([[0.1, 0.9, 1.0, 0.2]])
    positive = torch.tensor([[True, False, False, False]])
    negative = torch.tensor([[False, True, True, False]])
    miner = DistanceWeighted()
    miner.check(Euclidean(), torch.eye(4))
    for number in (0.0, 1 - 2**-53):
        numbers = torch.full((1, 4), number, dtype=torch.float64)
        chosen = miner.select(distances, positive, negative, 0.2, partial(torch.narrow, numbers, 1, 0))
        assert chosen.negative.item() in {1, 2}


@pytest.mark.parametrize(
    ("distance", "embeddings", "message"),
    [
        (Cosine(), torch.eye(3), "distance weighted: expected Euclidean distance, got Cosine"),
        (Euclidean(), torch.eye(3) * 2, "distance weighted: expected unit vectors, got one of length 2"),
        (Euclidean(), torch.eye(2), "distance weighted: expected embeddings of at least 3 dimensions, got 2"),
    ],
)
def test_refuses_where_the_density_does_not_hold(
    distance: Euclidean | Cosine, embeddings: torch.Tensor, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        TripletCriterion(distance, DistanceWeighted())(embeddings, torch.arange(len(embeddings)) % 2)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_unit_vectors_of_half_precision_are_accepted(kind: torch.dtype) -> None:
    """Also after they were converted to float32, as the memory and the evaluation do."""
    rows = torch.randn(48, 64, generator=torch.Generator().manual_seed(0)).to(kind)
    rows = torch.nn.functional.normalize(rows, dim=1)
    labels = torch.arange(48) % 6
    assert rows.dtype == kind
    criterion = TripletCriterion(Euclidean(), DistanceWeighted(), 0.4)
    losses = [criterion.train(False)(given, labels).loss for given in (rows, rows.float(), rows.double())]
    assert losses[0] == losses[1] > 0 and losses[2].item() == pytest.approx(losses[0].item(), rel=1e-5)
    longer = rows.float() * 1.005
    assert (rows.float().norm(dim=1) - 1).abs().max() > (1e-3 if kind == torch.bfloat16 else 1e-5)
    with pytest.raises(UserError, match=r"expected unit vectors, got one of length 1\.0"):
        criterion(longer, labels)  # has more digits than half precision, so that rounding is no excuse
    with pytest.raises(UserError, match=r"expected unit vectors, got one of length 1\.0[34]"):
        criterion((rows.float() * 1.03).to(kind), labels)


@pytest.mark.parametrize(("near", "far"), [(0.0, 1.4), (1.0, 0.5), (0.5, 2.5)])
def test_refuses_cutoffs_out_of_range(near: float, far: float) -> None:
    with pytest.raises(UserError, match=f"expected 0 < cutoff < .* got cutoff={near}, nonzero_loss_cutoff={far}"):
        DistanceWeighted(near, far)


def test_a_substitute_is_checked_and_draws_as_the_miner_itself() -> None:
    """``CollapseGuard`` sets a substitute during training; the check gives it the dimension of the density."""
    embeddings = torch.nn.functional.normalize(torch.randn(24, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.arange(24) // 4
    own, other = (TripletCriterion(Euclidean(), miner, 0.3) for miner in (DistanceWeighted(), Semihard()))
    other.substitute = DistanceWeighted()
    loss = own(embeddings, labels).loss
    assert loss > 0
    assert other(embeddings, labels).loss == loss
    with pytest.raises(UserError, match="distance weighted: expected unit vectors, got one of length 2"):
        other(2 * embeddings, labels)
