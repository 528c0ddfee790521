"""The csv file of a run: one row for each step, complete at any time, continued by a resume."""

from __future__ import annotations

from pathlib import Path

from metric_module.loggers import MetricsCSV


def test_figures_of_a_step_share_a_row(tmp_path: Path) -> None:
    log = MetricsCSV(str(tmp_path / "run" / "metrics.csv"), interval=1000)
    log.log_metrics({"train/loss": 0.5, "epoch": 0}, step=0)
    log.log_metrics({"val/loss": 0.25, "epoch": 0}, step=3)
    log.log_metrics({"train/loss": 0.125}, step=3)
    assert not log.path.exists()
    log.finalize("success")
    assert log.path.read_text() == "step,epoch,train/loss,val/loss\n0,0,0.5,\n3,0,0.125,0.25\n"
    assert [path.name for path in log.path.parent.iterdir()] == ["metrics.csv"]


def test_it_is_written_while_training_runs(tmp_path: Path) -> None:
    log = MetricsCSV(str(tmp_path / "metrics.csv"), interval=0)
    log.log_metrics({"loss": 1.0}, step=0)
    log.log_metrics({"loss": 2.0}, step=None)
    assert log.path.read_text() == "step,epoch,loss\n0,,2.0\n"


def test_a_continued_run_keeps_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,epoch,old\n0,0,7.5\n5,1,8.5\n9,1,9.5\n")
    log = MetricsCSV(str(path))
    log.log_metrics({"new": 1.5}, step=5)
    log.save()
    assert path.read_text() == "step,epoch,new,old\n0,0,,7.5\n5,,1.5,\n"


def test_nothing_logged_nothing_written(tmp_path: Path) -> None:
    log = MetricsCSV(str(tmp_path / "metrics.csv"))
    log.log_hyperparams({"margin": 0.2})
    log.finalize("failed")
    assert not log.path.exists()
    assert (log.name, log.version) == ("csv", "")
