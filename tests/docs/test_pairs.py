"""Code and commands of docs/pairs.md, run as they stand: its data, its tower, its commands."""

from __future__ import annotations

import json
import runpy
import shlex
from importlib import import_module
from pathlib import Path

import pyarrow as pa
import pytest

from metric_module.evaluation import pair_retrieval_metrics
from tests.helpers.command_line import command_in
from tests.helpers.pages import page

TEXT, FILES, (FIRST, *COMMANDS) = page("pairs.md")
SHORT = [
    "trainer.accelerator=cpu",
    "trainer.max_steps=2",
    "logger=csv",
    "hydra.run.dir=run",
    "+datamodule.preflight=false",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    assert shlex.split(FIRST) == ["python", "make_data.py"]
    runpy.run_path("make_data.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_every_block_has_a_name() -> None:
    assert len(FILES) == TEXT.count("```python") == 3
    assert len(COMMANDS) == 3


@pytest.mark.parametrize("line", COMMANDS, ids=["users", "captions", "labels"])
def test_its_commands_run(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python, script, *words = shlex.split(line)
    assert (python, script) == ("python", "run.py")
    command = command_in(folder, monkeypatch)
    assert command(*words, *SHORT) == 0
    figures = json.loads((folder / "run/metrics.json").read_text())
    assert figures["test"]["queries"] > 10
    assert "loss" not in figures["test"]
    page = (folder / "run/report.html").read_text()
    assert "This data has pairs instead of classes" in page
    assert "ndcg_at_10" in page
    evaluate = ["task=evaluate", "ckpt_path=run/checkpoints/best.ckpt", "hydra.run.dir=again", "report=false"]
    more = [word for word in words if word.startswith("evaluation")]
    trusted = ["trusted=[my_towers]"] if "captions" in line else []
    assert command(*evaluate, *more, *trusted, "trainer.accelerator=cpu", "logger=csv") == 0
    assert figures.pop("before") and "raw" not in figures and figures["val"].pop("best_step") >= 0
    assert json.loads((folder / "again/metrics.json").read_text()) == figures
    embed = ["task=embed", "ckpt_path=run/checkpoints/best.ckpt", "hydra.run.dir=embedded", *more, *trusted]
    assert command(*embed, "trainer.accelerator=cpu") == 0
    with pa.memory_map(str(folder / "embedded/embeddings.arrow")) as file:
        table = pa.ipc.open_file(file).read_all()
    ids, names = table["id"].to_pylist(), table["name"].to_pylist()
    assert table["label"].to_pylist() == names
    expected = {
        "ratings.csv": ("user 0", "item 49", 110),
        "captions.csv": ("text 0", "image 79", 240),
        "labels.csv": ("sample 0", "sample 79", 80),
    }
    path = next(word.rpartition("=")[2] for word in words if word.startswith("datamodule.path"))
    first, last, count = expected[path]
    assert ids == list(range(count))
    assert (names[0], names[-1]) == (first, last)


def test_what_needs_classes_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in shlex.split(COMMANDS[0])[2:] if not word.startswith("evaluation")]
    command = command_in(folder, monkeypatch)
    assert command(*words, "task=census", "evaluation=pair_retrieval", *SHORT) == 2
    assert "error: task=census: expected classes, and InteractionsDataModule has pairs" in capsys.readouterr().err
    assert command(*words, *SHORT, "trainer.max_steps=1") == 2
    message = (
        "error: evaluation: RetrievalMetric measures classes, and this data has relations; give "
        "evaluation=pair_retrieval"
    )
    assert message in capsys.readouterr().err
    assert not (folder / "run").exists(), "refused before the first step"


def test_data_of_classes_is_not_looked_at_by_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = command_in(tmp_path, monkeypatch)
    assert command("evaluation=pair_retrieval", *SHORT) == 2
    message = (
        "error: evaluation: PairRetrievalMetric measures relations, and this data has classes; give "
        "evaluation=retrieval"
    )
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir()), "refused before the first step"


def test_by_hand(folder: Path) -> None:
    found = import_module("by_hand")
    same = [encoder.table.weight.detach() * 0 for encoder in found.towers.encoders.values()]
    before = pair_retrieval_metrics(same[0], same[1], found.likes, at=(5,))
    assert found.figures["recall_at_5"] > 0.5 > before["recall_at_5"]
