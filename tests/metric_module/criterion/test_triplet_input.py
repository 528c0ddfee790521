"""Input and settings that the criterion rejects, with the message."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metric_module import TripletCriterion, UserError
from metric_module.distances import Euclidean
from metric_module.miners import All, Miner, SelectingMiner, Triplets, WindowMiner

GOOD, CLASSES = torch.eye(3), torch.tensor([0, 0, 1])
NAN = torch.tensor([[0.0, 1.0], [math.nan, 0.0], [1.0, 1.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (NAN, CLASSES),
            r"embeddings: expected finite numbers, got NaN or infinity in 1 of 3 rows \(first rows: \[1\]\)",
        ),
        ((torch.zeros(3), CLASSES), r"embeddings: expected a tensor of shape \[N, D\], got \(3,\)"),
        (
            (torch.zeros(3, 2, dtype=torch.int64), CLASSES),
            r"embeddings: expected floating point numbers, got torch.int64",
        ),
        (
            (GOOD, torch.tensor([0, 1])),
            r"labels: expected a tensor of shape \[3\], one integer per embedding, got \(2,\)",
        ),
        ((GOOD, torch.tensor([[0, 1, 1]])), r"labels: expected a tensor of shape \[3\].* got \(1, 3\)"),
        ((GOOD, torch.tensor([0.0, 1.0, 1.0])), r"labels: expected integers, got torch.float32"),
        ((GOOD, [0, 0, 1]), r"labels: expected a tensor of shape \[3\].* got list"),
        ((GOOD, None), r"labels: expected integers of shape \[B\], or a mask in positives, got neither"),
        ((GOOD, CLASSES, torch.eye(2), CLASSES[:2]), r"reference: expected a tensor of shape \[N, 3\], got \(2, 2\)"),
        (
            (GOOD, CLASSES, GOOD),
            r"reference_labels: expected integers of shape \[M\] together with reference, got None",
        ),
        ((GOOD, CLASSES, None, CLASSES), r"reference_labels and reference_ids go with reference"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        TripletCriterion(Euclidean(), All())(*arguments)
    assert "\n" not in str(caught.value)


def test_bad_ids_and_masks() -> None:
    criterion = TripletCriterion(Euclidean(), All())
    with pytest.raises(UserError, match="ids and reference_ids: expected both or neither, got one"):
        criterion(GOOD, CLASSES, GOOD, CLASSES, ids=CLASSES)
    with pytest.raises(
        UserError, match=r"positives: expected a bool mask of shape \[3, 3\], got torch.float32 \(3, 3\)"
    ):
        criterion(GOOD, CLASSES, positives=torch.eye(3))
    with pytest.raises(UserError, match=r"negatives: expected a bool mask of shape \[3, 3\], got torch.bool \(2, 3\)"):
        criterion(GOOD, CLASSES, negatives=torch.ones(2, 3, dtype=torch.bool))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"margin": 0.0}, "margin: expected a number > 0 for the hinge loss, got 0.0"),
        ({"margin": -1}, "margin: expected a number > 0 for the hinge loss, got -1"),
        ({"margin": -0.1, "loss": "soft"}, "margin: expected a number >= 0 for the soft loss, got -0.1"),
        ({"margin": math.nan}, "margin: expected a finite number, got nan"),
        ({"margin": "0.2"}, "margin: expected a finite number, got '0.2'"),
        ({"loss": "huber"}, "loss: expected one of hinge, soft, got 'huber'"),
        ({"reduction": "median"}, "reduction: expected one of mean_active, mean, sum, got 'median'"),
        ({"distance": All()}, "distance: expected a Distance, got All"),
        ({"miner": Euclidean()}, "miner: expected a WindowMiner, SelectingMiner or Scheduled, got Euclidean"),
    ],
)
def test_bad_settings_are_one_clear_line(arguments: dict[str, object], message: str) -> None:
    settings: dict[str, object] = {"distance": Euclidean(), "miner": All(), **arguments}
    with pytest.raises(UserError, match=message):
        TripletCriterion(**settings)  # type: ignore[arg-type]


def test_a_miner_that_names_a_wrong_triplet_is_refused() -> None:
    class Wrong(SelectingMiner):
        def select(self, distances: Tensor, *rest: object) -> Triplets:
            zero = torch.zeros(1, dtype=torch.int64)
            return Triplets(zero, zero, zero)

    miner: Miner = Wrong()
    with pytest.raises(UserError, match=r"Wrong\.select: named a triplet whose pairs are not in the masks"):
        TripletCriterion(Euclidean(), miner)(GOOD, CLASSES)


def test_a_window_of_the_wrong_shape() -> None:
    class Wide(WindowMiner):
        def window(self, d_ap: torch.Tensor, margin: float) -> tuple[float, torch.Tensor]:
            return -1.0, torch.zeros(7)

    criterion = TripletCriterion(Euclidean(), Wide())
    message = r"window: expected edges that broadcast to \[A, K\] = \[4, 1\], got shape \[7\]"
    with pytest.raises(UserError, match=message):
        criterion(torch.eye(4), torch.tensor([0, 0, 1, 1]))
