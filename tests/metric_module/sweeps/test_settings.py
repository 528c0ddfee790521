"""Settings of a sweep: repetitions, intervals, and the command that repeats a setting."""

from __future__ import annotations

import shlex
from types import MappingProxyType

import numpy as np
import pytest
from scipy import stats

from metric_module.sweeps.ledger import DONE, FAILED, Job
from metric_module.sweeps.settings import command_of, estimate, settings, student
from tests.helpers.sweep_folders import grid


def jobs(words: list[list[str]], figures: list[float | None]) -> list[Job]:
    return [
        Job(number, str(number), tuple(word), FAILED if figure is None else DONE, 0, 1.0, "", {})
        if figure is None
        else Job(number, str(number), tuple(word), DONE, 0, 1.0, "", {"val/map_at_r": figure, "val/loss": figure})
        for number, (word, figure) in enumerate(zip(words, figures, strict=True))
    ]


def test_students_t_against_scipy() -> None:
    for freedom in range(1, 120):
        assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_an_interval_against_scipy() -> None:
    found = [0.31, 0.52, 0.44, 0.47]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(found), scale=stats.sem(found))
    made = estimate(found)
    assert made.n == 4 and made.half is not None
    assert (made.mean - made.half, made.mean + made.half) == pytest.approx((low, high))
    assert estimate([0.5]) == (1, 0.5, None)


def test_seeds_and_folds_repeat_a_setting() -> None:
    words = grid("encoder=mlp", "margin=0.1,0.2", "+datamodule.fold=0,1", "seed=1,2")
    found = settings(jobs(words, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, None, 0.7]))
    assert [(setting.name, len(setting.jobs)) for setting in found] == [("margin=0.1", 4), ("margin=0.2", 4)]
    first, second = (setting.estimate("val/map_at_r") for setting in found)
    assert first is not None and first.n == 4 and first.mean == pytest.approx(0.25)
    assert second is not None and second.n == 3 and second.mean == pytest.approx(0.6)


def test_the_figures_from_before_training() -> None:
    figures = [{"before/map_at_r": 0.2, "raw/map_at_r": 0.5, "val/map_at_r": 0.7}, {"before/map_at_r": 0.4}]
    found = [
        Job(number, "", (f"seed={number}",), DONE, 0, 1.0, "", MappingProxyType(row))
        for number, row in enumerate(figures)
    ]
    (setting,) = settings(found)
    before, raw = setting.start("before", "val/map_at_r"), setting.start("raw", "val/map_at_r")
    assert before is not None and before.n == 2 and before.mean == pytest.approx(0.3)
    assert raw == (1, 0.5, None)
    assert setting.start("raw", "val/loss") is None and setting.start("raw", "train/loss") is None


def test_the_command_of_a_setting() -> None:
    words = grid("callbacks=[default;ema]", "margin=0.1,0.2", "seed=1,2", "test=false")
    first, second = settings(jobs(words, [0.1, 0.2, 0.3, 0.4]))
    command = "lightning-triplets -m 'callbacks=[default;ema]' margin=0.2 seed=1,2 test=true"
    assert command_of(second) == command
    assert shlex.split(command_of(first, ["--config-dir", "my conf"]))[1:4] == ["--config-dir", "my conf", "-m"]
    (only,) = settings(jobs(grid("margin=0.1", "seed=7"), [0.1]))
    assert only.name == "the only setting"
    assert command_of(only) == "lightning-triplets margin=0.1 seed=7 test=true"
