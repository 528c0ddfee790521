"""The sweeper for Optuna: seeded draws, stop and resume, failed jobs, direction."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from hydra_plugins.lightning_triplets_optuna import STORAGE, OptunaSweeper, open_study
from metric_module.errors import UserError
from metric_module.sweeps.ledger import write_plan
from tests.helpers.command_line import Command, command_in
from tests.helpers.sweep_folders import plan

SPACE = ("margin=interval(0.05,0.5)", "miner=choice(semihard,all)", "optimizer.lr=tag(log,interval(0.0003,0.03))")
SEARCH = ("-m", "hydra/sweeper=optuna", "hydra.sweeper.n_startup_trials=4", "hydra.sweep.dir=mine", "seed=3")
# A job that computes its figures from its options. events.json says which job stops the sweep, once.
JOB = """
import json, os, pathlib, signal, sys, time

words = dict(word.partition("=")[::2] for word in sys.argv[1:])
folder = pathlib.Path(words["hydra.run.dir"].strip("'"))
events = json.loads(pathlib.Path("events.json").read_text())
event = events.pop(folder.name, None)
pathlib.Path("events.json").write_text(json.dumps(events))
if event == "stop":
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)
error = abs(float(words["margin"]) - 0.2) + (words["miner"] == "all") + abs(float(words["optimizer.lr"]) - 0.001)
(folder / "metrics.json").write_text(json.dumps({"val": {"map_at_r": 1 - error, "eer": error}}))
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "events.json").write_text("{}")
    monkeypatch.setattr("metric_module.sweeps.job.CHILD", (sys.executable, str(tmp_path / "job.py")))
    return command_in(tmp_path, monkeypatch)


def rows(sweep: Path) -> list[tuple[str, ...]]:
    with (sweep / "sweep.csv").open(newline="") as file:
        return [
            tuple(row[key] for key in ("status", "margin", "miner", "optimizer.lr")) for row in csv.DictReader(file)
        ]


def states(sweep: Path) -> list[str]:
    return [trial.state.name for trial in open_study(sweep, "maximize").get_trials()]


def figure(words: Sequence[str]) -> float:
    """A figure with its best value, 1, at a margin of 0.2 and the semi-hard miner."""
    margin, miner, _ = (word.partition("=")[2] for word in words)
    return 1 - abs(float(margin) - 0.2) - (miner == "all")


class Jobs(OptunaSweeper):
    """A sweep without processes: it is also its own launcher, and stops before a job."""

    def __init__(self, folder: Path, stop: int = -1, bad: Mapping[int, float | None] | None = None, **given: int):
        options: dict[str, Any] = {"n_trials": 12, "n_jobs": 1, "n_startup_trials": 4, "seed": 3, **given}
        super().__init__(**options, direction="maximize", params=None)
        folder.mkdir(exist_ok=True)
        write_plan(folder, plan(None))
        self.stop, self.bad, self.jobs = stop, bad or {}, list[tuple[str, ...]]()
        self.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
        self.hydra_context: Any = SimpleNamespace(config_loader=None)
        self.launcher: Any = self

    def run(self) -> list[tuple[str, ...]]:
        self.sweep(list(SPACE))
        return self.jobs

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """These jobs are not composed."""

    def launch(self, jobs: list[list[str]], initial_job_idx: int) -> list[Any]:
        made = []
        for number, words in enumerate(jobs, initial_job_idx):
            if number == self.stop:
                raise KeyboardInterrupt
            self.jobs.append(tuple(words))
            made.append(SimpleNamespace(return_value=self.bad.get(number, figure(words))))
        return made


def test_without_optuna_one_line_names_the_extra(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert command(*SEARCH, *SPACE) == 2
    assert capsys.readouterr().err == (
        "error: hydra/sweeper=optuna needs Optuna: pip install 'lightning-triplets[optuna]'\n"
    )
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("name", "value", "least"), [("n_trials", 0, 1), ("n_jobs", "2", 1), ("n_startup_trials", -1, 0), ("seed", 1.5, 0)]
)
def test_options_are_counts(name: str, value: Any, least: int) -> None:
    options = {"n_trials": 1, "n_jobs": 1, "n_startup_trials": 0, "seed": None, name: value}
    sweeper = OptunaSweeper(**options, direction="maximize", params=None)
    message = f"hydra.sweeper.{name}: expected an integer of {least} or more, got {value!r}"
    with pytest.raises(UserError, match=re.escape(message)):
        sweeper.setup(hydra_context=None, task_function=None, config=OmegaConf.create({"seed": 0}))  # type: ignore[arg-type]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("margin=0.1",), "hydra/sweeper=optuna: expected a search space, such as 'margin=interval(0.05,0.5)'"),
        ((*SPACE, "hydra.sweeper.direction=up"), "hydra.sweeper.direction: expected maximize or minimize, got 'up'"),
        (
            (*SPACE, "~evaluation.retrieval", "+evaluation.a._target_=tests.helpers.my_metrics.Spread"),
            "hydra/sweeper=optuna: the evaluation names no main figure; give one, monitor=val/...",
        ),
    ],
)
def test_a_search_needs_a_space_and_a_figure(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert command(*SEARCH, *words) == 2
    assert f"error: {message}\n" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


@pytest.mark.integration
@pytest.mark.parametrize("together", [1, 3])
def test_a_stopped_search_proposes_what_it_would_have_proposed(tmp_path: Path, together: int) -> None:
    whole = Jobs(tmp_path / "whole", n_jobs=together).run()
    stopped = Jobs(tmp_path / "stopped", n_jobs=together, stop=7)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    again = Jobs(tmp_path / "stopped", n_jobs=together)
    assert again.run() == whole and set(stopped.jobs) < set(again.jobs)
    assert states(tmp_path / "stopped") == ["COMPLETE"] * 12
    assert len(set(whole)) == 12 and {job[1] for job in whole} == {"miner=semihard", "miner=all"}
    margins, rates = ([float(job[place].partition("=")[2]) for job in whole] for place in (0, 2))
    assert 0.05 <= min(margins) < 0.2 < max(margins) <= 0.5 and 0.0003 <= min(rates) < 0.003 < max(rates) <= 0.03
    other = Jobs(tmp_path / "other", n_jobs=together, seed=4).run()
    assert not {job[0] for job in other} & {job[0] for job in whole}


@pytest.mark.integration
def test_tpe_finds_better_values_than_its_random_start(tmp_path: Path) -> None:
    figures = [figure(job) for job in Jobs(tmp_path, n_trials=30, n_startup_trials=10).run()]
    assert median(figures[20:]) > 0.95 > median(figures[:10])


@pytest.mark.integration
def test_a_sweep_is_stopped_and_resumed(tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "events.json").write_text('{"2": "stop"}')
    assert command(*SEARCH, "hydra.sweeper.n_trials=3", *SPACE) == 130
    assert "resume_sweep=mine" in capsys.readouterr().err
    before = rows(tmp_path / "mine")
    assert [row[0] for row in before] == ["done"] * 2
    study = open_study(tmp_path / "mine", "maximize")
    study.ask().suggest_float("margin", 0.05, 0.5)  # a crash while trial 3 was asked for: it has no miner
    assert command("resume_sweep=mine", "hydra.sweeper.n_trials=4") == 0
    assert rows(tmp_path / "mine")[:2] == before
    assert [row[0] for row in rows(tmp_path / "mine")] == ["done"] * 4
    assert states(tmp_path / "mine") == ["COMPLETE", "COMPLETE", "COMPLETE", "RUNNING", "COMPLETE"]


@pytest.mark.integration
def test_a_failed_job_is_told_as_failed_and_its_repetition_counts_once(tmp_path: Path) -> None:
    found = Jobs(tmp_path, n_trials=5, bad={1: float("nan"), 3: None}).run()
    assert states(tmp_path) == ["COMPLETE", "FAIL", "COMPLETE", "FAIL", "COMPLETE"]
    for _ in range(2):
        assert Jobs(tmp_path, n_trials=6, bad={3: None}).run()[:5] == found
        trials = open_study(tmp_path, "maximize").get_trials()
        assert [trial.state.name for trial in trials[5:]] == ["COMPLETE"] * 2
        (again,) = [trial for trial in trials if trial.user_attrs]
        assert (again.user_attrs, again.params, again.value) == ({"repeats": 1}, trials[1].params, figure(found[1]))


@pytest.mark.integration
def test_the_direction_is_that_of_the_figure(tmp_path: Path, command: Command) -> None:
    assert command(*SEARCH, "hydra.sweeper.n_trials=2", "evaluation=verification", "monitor=val/eer", *SPACE) == 0
    study = open_study(tmp_path / "mine", "minimize")
    assert study.direction.name == "MINIMIZE"
    assert study.best_value == min(trial.value or 9.0 for trial in study.get_trials())


@pytest.mark.integration
def test_a_search_space_from_a_file(tmp_path: Path, command: Command) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/search.yaml").write_text(
        "# @package _global_\n"
        "defaults: [{override /hydra/sweeper: optuna}]\n"
        "hydra: {sweeper: {n_trials: 2, params: {margin: 'interval(0.1,0.2)', miner: all, optimizer.lr: 0.001}}}\n"
    )
    words = ("-m", "--config-dir", "conf", "experiment=search", "hydra.sweep.dir=mine")
    assert command(*words) == 0
    with (tmp_path / "mine/sweep.csv").open(newline="") as file:
        assert all(0.1 <= float(row["margin"]) <= 0.2 for row in csv.DictReader(file))


@pytest.mark.integration
def test_a_damaged_study_is_named_and_can_be_deleted(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*SEARCH, "hydra.sweeper.n_trials=2", *SPACE) == 0
    before = rows(tmp_path / "mine")
    (tmp_path / "mine" / STORAGE).write_text("no database")
    assert command("resume_sweep=mine") == 2
    assert f"{STORAGE}: cannot be read as a study of Optuna" in capsys.readouterr().err
    (tmp_path / "mine" / STORAGE).unlink()
    assert command("resume_sweep=mine") == 0
    assert rows(tmp_path / "mine") == before
