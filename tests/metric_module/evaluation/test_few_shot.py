"""Few-shot accuracy: fixed episodes, exact answers, ties that are misses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from metric_module import UserError
from metric_module.distances import Cosine, Manhattan
from metric_module.evaluation import few_shot_metrics
from metric_module.evaluation.exact.any_distance import exact_distance
from metric_module.evaluation.few_shot import _accuracy, _choose
from tests.helpers.points import cloud

SMALL: dict[str, Any] = {"ways": 4, "shots": (1, 2), "queries": 3, "episodes": 80}


def test_distant_classes_are_separated_and_a_constant_scores_zero() -> None:
    labels = torch.arange(60) % 6
    far = labels[:, None] * 100.0 + torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    found = few_shot_metrics(far, labels, **SMALL)
    assert found == {
        "accuracy_4_way_1_shot": 1.0,
        "accuracy_4_way_1_shot_interval": 0.0,
        "accuracy_4_way_2_shot": 1.0,
        "accuracy_4_way_2_shot_interval": 0.0,
    }
    assert few_shot_metrics(far * 0, labels, **SMALL)["accuracy_4_way_1_shot"] == 0


def test_noise_is_right_by_chance_as_often_as_the_interval_says() -> None:
    labels = torch.arange(200) % 10
    noise = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    found = few_shot_metrics(noise, labels, ways=5, shots=(1,), episodes=600)
    assert found["accuracy_5_way_1_shot"] == pytest.approx(0.2, abs=3 * found["accuracy_5_way_1_shot_interval"])
    fewer = few_shot_metrics(noise, labels, ways=5, shots=(1,), episodes=150)
    assert fewer["accuracy_5_way_1_shot_interval"] == pytest.approx(
        2 * found["accuracy_5_way_1_shot_interval"], rel=0.3
    )


def test_more_shots_help_and_neither_order_nor_other_shots_show() -> None:
    x, labels = cloud(rows=150, classes=12)
    ids = torch.arange(150) * 3
    found = few_shot_metrics(x, labels, ids, **SMALL)
    assert 0.25 < found["accuracy_4_way_1_shot"] < found["accuracy_4_way_2_shot"] < 1
    order = torch.randperm(150, generator=torch.Generator().manual_seed(1))
    assert few_shot_metrics(x[order], labels[order], ids[order], **SMALL) == found
    alone = few_shot_metrics(x, labels, ids, **{**SMALL, "shots": (2,)})
    assert alone["accuracy_4_way_2_shot"] == found["accuracy_4_way_2_shot"]
    assert few_shot_metrics(x, labels, ids, **SMALL, seed=1) != found
    assert few_shot_metrics(x, labels, ids, **SMALL, distance=Manhattan()) != found
    assert few_shot_metrics(x, labels, ids, **SMALL, distance=Cosine()) != found


@pytest.mark.parametrize("seed", range(20))
def test_an_episode_against_an_oracle(seed: int) -> None:
    x, labels = cloud(seed=seed, rows=120, classes=8)
    classes = [label for label in range(8) if (labels == label).sum() > 3][:4]
    rows = torch.full((4, 7), -1)
    for place, label in enumerate(classes):
        members = (labels == label).nonzero()[:7, 0]
        rows[place, : len(members)] = members
    right = total = 0
    points = x.double().numpy()
    means = [points[rows[place, :2].numpy()].mean(axis=0) for place in range(4)]
    for place in range(4):
        for row in rows[place, 2:].tolist():
            if row >= 0:
                distances = [float(np.sqrt(((points[row] - mean) ** 2).sum())) for mean in means]
                right += all(distances[place] < d for other, d in enumerate(distances) if other != place)
                total += 1
    assert right < total
    measure = exact_distance(None, x.device)
    assert _accuracy(x, rows, 2, measure) == pytest.approx(right / total)


def test_what_is_drawn_is_different_and_of_its_class() -> None:
    size = torch.tensor([3, 9, 5])
    counts = torch.zeros(3, 9)
    for key in range(300):
        chosen = _choose(torch.tensor([key, key + 1000, key + 2000]), size, 4)
        for place in range(3):
            real = chosen[place][chosen[place] >= 0]
            assert len(real) == min(4, int(size[place])) == len(set(real.tolist()))
            assert int(real.max()) < size[place]
            counts[place, real] += 1
    assert counts[0, :3].tolist() == [300.0] * 3
    assert float((counts[1] - 300 * 4 / 9).abs().max()) < 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ways": 1}, "ways: expected an integer >= 2, got 1"),
        ({"queries": 0}, "queries: expected an integer >= 1, got 0"),
        ({"episodes": 1}, "episodes: expected an integer >= 2, got 1"),
        ({"shots": (0,)}, r"shots: expected different integers >= 1, got \[0\]"),
        ({"shots": ()}, r"shots: expected different integers >= 1, got \[\]"),
        ({"ways": 3}, "few-shot: expected at least 3 classes of more than 1 samples, got 2 of 2; lower ways or shots"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        few_shot_metrics(torch.randn(6, 2), torch.tensor([0, 0, 0, 1, 1, 1]), **{"ways": 2, "shots": (1,), **arguments})
