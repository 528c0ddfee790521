"""The winner of a sweep, and the sweep in which no job learned anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from metric_module.sweeps.ledger import Job, read_jobs
from metric_module.sweeps.objective import Objective
from metric_module.sweeps.settings import settings
from metric_module.sweeps.winner import best, no_winner
from tests.helpers.sweep_folders import grid, leave

MAP_AT_R, LOSS = Objective("val/map_at_r", False), Objective("val/loss", True)
NOBODY = "no job improved on its encoder before training: "
TRY = "; try a pretrained encoder, a lower optimizer.lr or more classes"


def swept(
    folder: Path, words: Sequence[str], figures: Sequence[float | int | None], steps: Sequence[int | None] = ()
) -> list[Job]:
    leave(folder, grid(*words), figures, steps)
    return read_jobs(folder)


def names(jobs: Sequence[Job], objective: Objective) -> list[str]:
    return [setting.name for setting in best(settings(jobs), objective)]


def test_the_winner_has_the_best_mean_not_the_best_seed(tmp_path: Path) -> None:
    jobs = swept(tmp_path, ["margin=0.1,0.2", "seed=1,2"], [0.9, 0.1, 0.6, 0.6])
    assert names(jobs, MAP_AT_R) == ["margin=0.2"]
    assert names(jobs, Objective("val/map_at_r", True)) == ["margin=0.1"]
    assert names(jobs, Objective("val/mrr", False)) == [] == names([], MAP_AT_R)
    assert no_winner(jobs, MAP_AT_R) == "" == no_winner([], MAP_AT_R)


def test_ties_and_negative_figures(tmp_path: Path) -> None:
    jobs = swept(tmp_path, ["margin=0.1,0.2,0.3"], [-2.0, -1.0, -1.0])
    assert names(jobs, MAP_AT_R) == ["margin=0.2", "margin=0.3"]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([0, 0, 9, 9], ["margin=0.2"]),  # the better setting learned nothing
        ([0, 9, 9, 9], ["margin=0.1"]),  # one of its two jobs did
        ([9, 0, 0, 0], ["margin=0.1"]),
        ([0, 0, None, None], ["margin=0.2"]),  # an older run does not say
        ([None] * 4, ["margin=0.1"]),
        ([0, 0, 0, 0], []),
    ],
)
def test_a_setting_that_learned_nothing_cannot_win(
    tmp_path: Path, steps: Sequence[int | None], expected: list[str]
) -> None:
    jobs = swept(tmp_path, ["margin=0.1,0.2", "seed=1,2"], [0.9, 0.8, 0.5, 0.6], steps)
    assert names(jobs, MAP_AT_R) == expected
    assert bool(no_winner(jobs, MAP_AT_R)) == (not expected)


def test_a_sweep_in_which_nothing_was_learned(tmp_path: Path) -> None:
    """Jobs that failed or are missing have not learned either."""
    jobs = swept(tmp_path, ["seed=1,2,3,4"], [0.5, 0.25, 2, None], [0, 0])
    assert no_winner(jobs, MAP_AT_R) == (
        f"{NOBODY}val/map_at_r was never above its value at step 0 (at most 0.5000){TRY}"
    )
    assert no_winner(jobs, LOSS) == f"{NOBODY}val/loss was never below its value at step 0 (at least 0.5000){TRY}"
    assert names(jobs, MAP_AT_R) == [] == names(jobs, LOSS)
    assert no_winner(jobs, Objective("val/mrr", False)) == "", "no job has the figure"
