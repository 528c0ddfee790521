"""The ledger of a sweep: a row for every job, computed from the folders of the jobs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from metric_module.sweeps.ledger import (
    DONE,
    FAILED,
    MISSING,
    Job,
    cell,
    label,
    read_jobs,
    read_plan,
    same_job,
    swept_keys,
    write_job,
    write_ledger,
    write_plan,
)
from tests.helpers.sweep_folders import grid, leave, plan


def rows(sweep: Path) -> list[dict[str, str]]:
    write_ledger(sweep)
    with (sweep / "sweep.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_job_has_a_row(tmp_path: Path) -> None:
    leave(tmp_path, grid("encoder=mlp", "margin=0.1,0.2", "seed=1,2"), [0.5, 2, None, 0.25])
    first, second, third, last = rows(tmp_path)
    assert list(first)[:7] == ["job", "folder", "status", "exit_code", "seconds", "margin", "seed"]
    assert list(first)[7:] == ["test/map_at_r", "val/loss", "val/map_at_r"]
    assert list(first.values()) == ["0", "0", "done", "0", "1.5", "0.1", "1", "0.25", "0.5", "0.5"]
    assert list(second.values()) == ["1", "1", "failed", "2", "1.5", "0.1", "2", "", "", ""]
    assert list(third.values()) == ["2", "", "missing", "", "", "0.2", "1", "", "", ""]
    assert (last["job"], last["status"], last["val/map_at_r"]) == ("3", "done", "0.25")


def test_the_best_step_has_one_column_before_the_figures(tmp_path: Path) -> None:
    leave(tmp_path, grid("seed=1,2,3"), [0.5, 0.6, 0.7], [0, 784, None], {"before": [0.5] * 3, "raw": [0.25] * 3})
    found = rows(tmp_path)
    assert [*found[0]][6:] == [
        *("best_step", "before/loss", "before/map_at_r", "raw/loss", "raw/map_at_r"),
        *("test/map_at_r", "val/loss", "val/map_at_r"),
    ]
    assert [row["best_step"] for row in found] == ["0", "784", ""]
    assert [job.best_step for job in read_jobs(tmp_path)] == [0, 784, None]
    assert [row["raw/map_at_r"] for row in found] == ["0.25"] * 3


def test_a_running_job_is_missing_and_has_no_figures(tmp_path: Path) -> None:
    leave(tmp_path, grid("seed=1,2"), [0.5, 0.6])
    write_job(tmp_path / "1", Job(1, "", ("seed=2",), MISSING))
    job = read_jobs(tmp_path)[1]
    assert (job.folder, job.status, job.exit_code, dict(job.figures)) == ("1", MISSING, None, {})


def test_a_sweeper_that_chooses_jobs_during_the_sweep(tmp_path: Path) -> None:
    """The plan lists no jobs: they are read from the folders, in the order of their numbers."""
    write_plan(tmp_path, plan(None))
    for number in (10, 2):
        write_job(tmp_path / "deep" / str(number), Job(number, "", (f"margin=0.{number}",), MISSING, 1, 2.0, "bad"))
    jobs = read_jobs(tmp_path)
    assert [(job.number, job.folder, job.status) for job in jobs] == [(2, "deep/2", FAILED), (10, "deep/10", FAILED)]
    assert swept_keys(jobs) == ["margin"]


def test_the_folder_of_another_sweep_is_not_taken_for_this_one(tmp_path: Path) -> None:
    leave(tmp_path, grid("seed=1,2,3"), [0.5, 0.6, 0.7])
    write_plan(tmp_path, plan(grid("seed=1,9")))
    assert [(job.status, job.overrides) for job in read_jobs(tmp_path)] == [(DONE, ("seed=1",)), (MISSING, ("seed=9",))]


def test_trusted_and_debug_may_differ_in_the_same_job() -> None:
    job = Job(0, "0", ("margin=0.1", "trusted=[a]"), DONE)
    assert same_job(job, ["margin=0.1", "debug=true"])
    assert not same_job(job, ["margin=0.2"])


def test_a_label_has_the_overrides_that_differ() -> None:
    job = Job(0, "0", ("encoder=mlp", "margin=0.1", "seed=1"), DONE)
    assert label(job, ["seed", "margin"]) == "margin=0.1 seed=1"
    assert label(job, []) == "encoder=mlp margin=0.1 seed=1"


def test_figures_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    leave(tmp_path, grid("seed=1"), [0.5])
    (tmp_path / "0" / "metrics.json").write_text('{"val": {"map_at_r": null, "loss": NaN, "mrr": 0.5}}')
    assert dict(read_jobs(tmp_path)[0].figures) == {"val/mrr": 0.5}


def test_a_file_that_is_not_a_plan(tmp_path: Path) -> None:
    for text in ("[]", '{"jobs": []}', "{"):
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(ValueError, match=r"expected monitor, words, .* in |Expecting property name"):
            read_plan(tmp_path)
    write_plan(tmp_path, plan([["a=1"]]))
    assert read_plan(tmp_path) == plan([["a=1"]])
    assert json.loads((tmp_path / "sweep.json").read_text())["jobs"] == [["a=1"]]


def test_a_spreadsheet_reads_no_formula(tmp_path: Path) -> None:
    evil = "=cmd|' /C calc'!A0"
    jobs = [[f"encoder.name={evil}", "+datamodule.fold=-1", f"{evil}=1"], ["encoder.name=@a", "+datamodule.fold=2"]]
    leave(tmp_path, jobs, [0.5, 0.25])
    (tmp_path / "1" / "metrics.json").write_text('{"=val": {"a": -0.5}}')
    write_ledger(tmp_path)
    with (tmp_path / "sweep.csv").open(newline="", encoding="utf-8") as file:
        header, one, two = csv.reader(file)
    assert header[5:] == ["encoder.name", "+datamodule.fold", "", "'=val/a", *header[-3:]]
    assert one[5:9] == [f"'{evil}", "-1", "cmd|' /C calc'!A0=1", ""]
    assert two[5:9] == ["'@a", "2", "", "-0.5"]


@pytest.mark.parametrize("text", ["+A1+B1*2", "+cmd|x", "-1+1", "@SUM(A1)", "\t=1", "\uff1d1"])
def test_a_cell_that_begins_a_formula(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-0.5", "+1e-3", "+datamodule.fold", "++a/b.c", "margin=0.1", "", 3, None])
def test_a_cell_that_begins_none(value: object) -> None:
    assert cell(value) == value


@pytest.mark.parametrize(
    "change", [{"words": 3}, {"jobs": [["a"], 1]}, {"options": [1]}, {"monitor": 1}, {"jobs": "a"}]
)
def test_a_plan_of_another_shape(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps({**plan([["a=1"]])._asdict(), **change}))
    with pytest.raises(ValueError, match=r"expected lists of texts, and a monitor, in .*sweep.json"):
        read_plan(tmp_path)


def test_a_plan_of_an_earlier_version_has_no_direction(tmp_path: Path) -> None:
    found = {key: value for key, value in plan([["a=1"]], "val/eer")._asdict().items() if key != "lower"}
    (tmp_path / "sweep.json").write_text(json.dumps(found))
    assert read_plan(tmp_path).objective == ("val/eer", True)
