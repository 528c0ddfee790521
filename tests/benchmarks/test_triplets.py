"""The figure of The triplet loss shows what its text says: negatives of each zone, none of the anchor's class."""

from __future__ import annotations

import torch

from benchmarks.triplets import SHOWN, closest_to_three, spread


def test_negatives_of_each_zone_and_of_different_classes() -> None:
    distances = torch.linspace(0, 2, 201)  # (N,)
    names = ["own" if row % 5 == 0 else f"class {row // 2}" for row in range(201)]
    chosen = spread(distances, 0.5, 0.4, names, "own")
    inside = [float(distances[row]) for row in chosen]
    assert [sum(value <= 0.5 for value in inside), sum(0.5 < value <= 0.9 for value in inside)] == [2, 3]
    assert len(chosen) == sum(SHOWN.values()) == len({names[row] for row in chosen} - {"own"})


def test_the_pair_has_hard_negatives_of_three_classes() -> None:
    points = torch.tensor([0.0, 1.0, 4.6, 2.0, 3.0, 4.0, 9.0])  # (N,)
    labels = torch.tensor([0, 0, 0, 1, 2, 3, 4])
    distances = (points[:, None] - points).abs()  # (N, N)
    anchor, positive = closest_to_three(distances, labels, [bool(label == 0) for label in labels])
    row = distances[anchor]
    hard = labels[(row <= row[positive]) & (labels != 0)].tolist()
    assert (anchor, positive) == (0, 2)
    assert sorted(hard) == [1, 2, 3]
