"""The plan of a sweep, and the files and messages at its end, after a stop, and after a rejection."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from metric_module.config import conf_folder
from metric_module.config.schema import register
from metric_module.sweeps.ledger import read_plan
from metric_module.sweeps.lifecycle import SweepReport, finish_sweep, leave_sweep, plan_of
from tests.helpers.sweep_folders import grid, leave

CONF = conf_folder()


@pytest.fixture(autouse=True)
def leave_nothing() -> Iterator[None]:
    yield
    leave_sweep()


def composed(*overrides: str, words: list[str], folder: Path = Path("x")) -> DictConfig:
    """Compose a configuration as Hydra passes it to a callback: with the overrides of the whole sweep."""
    register()
    cfg = compose("config", overrides=list(overrides), return_hydra_config=True)
    OmegaConf.set_readonly(cfg.hydra, False)
    with open_dict(cfg):
        cfg.hydra.overrides.task = words
        cfg.hydra.sweep.dir = str(folder)
    return cfg


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def test_the_plan_lists_the_jobs() -> None:
    plan = plan_of(composed(words=["margin=0.1,0.2", "miner=glob(b*)", "seed=range(2)"]))
    assert plan.jobs == grid("margin=0.1,0.2", "miner=batch_hard", "seed=0,1")
    assert (plan.monitor, plan.options) == ("val/map_at_r", [])


def test_the_reality_check_is_four_folds() -> None:
    plan = plan_of(composed("experiment=reality_check", words=["experiment=reality_check", "margin=0.1,0.2"]))
    assert plan.jobs is not None and len(plan.jobs) == 8
    folds = grid("datamodule.fold=0,1,2,3", "experiment=reality_check", "margin=0.1,0.2")
    assert sorted(sorted(job) for job in plan.jobs) == sorted(sorted(job) for job in folds)


def test_no_jobs_are_listed_for_invalid_overrides_or_another_sweeper() -> None:
    assert plan_of(composed(words=["margin=interval(0,1)"])).jobs is None
    assert plan_of(composed("hydra.sweeper._target_=hydra_plugins.a.B", words=["margin=0.1,0.2"])).jobs is None


def begin(folder: Path, resume: bool = False, words: tuple[str, ...] = ("seed=1,2",)) -> None:
    SweepReport(resume).on_multirun_start(composed(words=list(words), folder=folder))


def test_the_end_names_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path)
    leave(tmp_path, grid("seed=1,2"), [0.5, 3])
    assert finish_sweep() == 1
    output = capsys.readouterr()
    assert output.err == (
        f"error: job 1 (seed=2) failed with exit code 3: {tmp_path}/1\n"
        f"to run the missing and failed jobs: lightning-triplets resume_sweep={tmp_path}\n"
    )
    assert output.out == f"1 of 2 jobs done, written to {tmp_path}/sweep.html and sweep.csv\n"
    assert finish_sweep() == 0, "the sweep is closed only once"


def test_an_end_without_failures_is_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path)
    leave(tmp_path, grid("seed=1,2"), [0.5, 0.6])
    assert finish_sweep() == 0
    assert capsys.readouterr().err == ""
    assert (tmp_path / "sweep.html").is_file() and (tmp_path / "sweep.csv").is_file()


def test_a_stopped_sweep_is_written_and_can_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path)
    leave(tmp_path, grid("seed=1,2"), [0.5, None])
    leave_sweep()
    assert "1 missing" in (tmp_path / "sweep.html").read_text()
    assert f"resume_sweep={tmp_path}\n" in capsys.readouterr().err


def test_a_sweep_without_a_job_leaves_no_folder(tmp_path: Path) -> None:
    begin(tmp_path / "new")
    leave_sweep()
    assert not (tmp_path / "new").exists()


def test_a_sweep_without_a_job_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    begin(tmp_path)
    (tmp_path / "0").mkdir()
    leave_sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_second_sweep_in_the_same_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path, grid("seed=1,2"), [0.5, None])
    before = (tmp_path / "sweep.json").read_bytes()
    with pytest.raises(SystemExit) as stop:
        begin(tmp_path, words=("seed=3,4",))
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"error: hydra.sweep.dir: {tmp_path} holds a sweep; to continue it give resume_sweep={tmp_path}, "
        "for another sweep give another folder\n"
    )
    leave_sweep()
    assert (tmp_path / "sweep.json").read_bytes() == before


def test_a_resumed_sweep_keeps_its_plan(tmp_path: Path) -> None:
    leave(tmp_path, grid("seed=1,2"), [None, None])
    before = read_plan(tmp_path)
    begin(tmp_path, resume=True, words=("seed=1,2", "trusted=[mine]"))
    assert read_plan(tmp_path) == before
    leave_sweep()
    assert (tmp_path / "sweep.json").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_between_jobs_end_the_sweep(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    begin(tmp_path)
    with pytest.raises(SystemExit) as stop:
        signal.raise_signal(number)
    assert stop.value.code == 128 + number
    leave_sweep()
    assert signal.getsignal(number) is before


def test_a_resumed_sweep_that_is_rejected_prints_nothing_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its command would be rejected again; ``sweep.csv`` and ``sweep.html`` are written all the same."""
    leave(tmp_path, grid("seed=1,2"), [0.5, None])
    begin(tmp_path, resume=True)
    leave_sweep(refused=True)
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "sweep.html").is_file() and (tmp_path / "sweep.csv").is_file()


def test_a_stopped_sweep_that_lacks_no_job_is_not_to_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(tmp_path)
    leave(tmp_path, grid("seed=1,2"), [0.5, 0.6])
    leave_sweep()
    assert capsys.readouterr() == (f"2 of 2 jobs done, written to {tmp_path}/sweep.html and sweep.csv\n", "")


def test_overrides_of_a_foreign_job_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(tmp_path)
    leave(tmp_path, [["encoder.name=\x1b[2Ja"], ["encoder.name=b"]], [3, 0.5])
    assert finish_sweep() == 1
    told = capsys.readouterr().err
    assert "job 0 (encoder.name=\\x1b[2Ja) failed" in told and "\x1b" not in told


def test_a_sweep_in_which_nothing_was_learned_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path)
    leave(tmp_path, grid("seed=1,2"), [0.5, 0.25], [0, 0])
    assert finish_sweep() == 0
    written, line = capsys.readouterr().out.splitlines()
    assert written.startswith("2 of 2 jobs done") and line == (
        "no job improved on its encoder before training: val/map_at_r was never above its value at step 0 "
        "(at most 0.5000); try a pretrained encoder, a lower optimizer.lr or more classes"
    )
    begin(tmp_path, resume=True)
    leave_sweep(refused=True)
    assert capsys.readouterr() == ("", "")
