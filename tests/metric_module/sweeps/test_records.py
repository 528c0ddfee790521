"""Damaged and foreign files in the folder of a sweep: a job to run again, named in one line, and the rest goes on."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from metric_module.sweeps import records
from metric_module.sweeps.ledger import DONE, MISSING, Job, read_jobs, write_job, write_ledger
from tests.helpers.sweep_folders import grid, leave

WHOLE = {"job": 1, "overrides": ["seed=2"], "exit_code": 0, "seconds": 1.5, "reason": ""}
DAMAGED_JOBS = ["", "{", "[]", "null", '"a"', "{}"]
DAMAGED_JOBS += [json.dumps({key: value for key, value in WHOLE.items() if key != gone}) for gone in WHOLE]
WRONG = [("job", "1"), ("job", True), ("job", -1), ("overrides", "seed=2"), ("overrides", [2]), ("exit_code", "0")]
WRONG += [("exit_code", False), ("seconds", float("nan")), ("seconds", "1"), ("reason", None)]
DAMAGED_JOBS += [json.dumps({**WHOLE, key: value}) for key, value in WRONG]
DAMAGED_METRICS = ["", "{", "[]", '{"val": 1}', '{"val": {"map_at_r": "high"}}', '{"val": {"map_at_r": true}}']
DAMAGED_METRICS += ['{"val": null}', f'{{"val": {{"map_at_r": {"9" * 400}}}}}']


@pytest.fixture(autouse=True)
def tell_again() -> None:
    records._tell.cache_clear()


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize(
    ("name", "text"),
    [("job.json", text) for text in DAMAGED_JOBS] + [("metrics.json", text) for text in DAMAGED_METRICS],
)
def test_a_job_with_a_damaged_file_runs_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, number: int
) -> None:
    leave(tmp_path, grid("seed=1,2,3"), [0.5, 0.6, 0.7])
    (tmp_path / str(number) / ".hydra").mkdir()
    (tmp_path / str(number) / name).write_text(text)
    for _ in range(2):
        jobs = write_ledger(tmp_path)
    assert [job.status for job in jobs] == [MISSING if job.number == number else DONE for job in jobs]
    with (tmp_path / "sweep.csv").open(newline="") as file:
        figures = [row["val/map_at_r"] for row in csv.DictReader(file)]
    assert figures == ["" if place == number else figure for place, figure in enumerate(("0.5", "0.6", "0.7"))]
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"{tmp_path}/{number}/{name} ") and told.endswith(": this job counts as missing")


def test_bytes_and_a_folder_in_place_of_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path, grid("seed=1,2"), [0.5, 0.6])
    (tmp_path / "0" / ".hydra").mkdir()
    (tmp_path / "0" / "job.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "1" / "metrics.json").unlink()
    (tmp_path / "1" / "metrics.json").mkdir()
    assert [job.status for job in read_jobs(tmp_path)] == [MISSING, MISSING]
    told = capsys.readouterr().err.splitlines()
    assert "job.json cannot be read (UnicodeDecodeError)" in told[0] and "(IsADirectoryError)" in told[1]


def test_a_record_that_no_job_of_this_sweep_wrote_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of the same name below a job or elsewhere, and a copy of a job's folder."""
    sweep = tmp_path / "sweep"
    leave(sweep, grid("seed=1,2"), [0.5, 0.6])
    for number in range(2):
        write_job(sweep / str(number), Job(number, str(number), (f"seed={number + 1}",), MISSING, 0, 1.0))
    shutil.copytree(sweep / "1", sweep / "1_copy")
    (sweep / "1_copy" / "metrics.json").write_text('{"val": {"map_at_r": 0.9}}')
    for folder, text in (("0/mine", json.dumps({**WHOLE, "exit_code": 3})), ("notes", "my job"), ("0/b", "{")):
        (sweep / folder).mkdir()
        (sweep / folder / "job.json").write_text(text)
    (sweep / "job.json").write_text("{}")
    jobs = read_jobs(sweep)
    assert [(job.folder, job.status, job.figures.get("val/map_at_r")) for job in jobs] == [
        ("0", DONE, 0.5),
        ("1", DONE, 0.6),
    ]
    assert capsys.readouterr().err == ""


def test_the_line_shows_no_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "a\x1b[31mb"
    leave(sweep, grid("seed=1"), [0.5])
    (sweep / "0" / "metrics.json").write_text("")
    write_ledger(sweep)
    assert "a\\x1b[31mb/0/metrics.json cannot be read (JSONDecodeError): this" in capsys.readouterr().err
