"""Code and commands of docs/use.md, run as they stand, after a short training of a small encoder."""

from __future__ import annotations

import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch

from metric_module import Embedder, EmbeddingIndex
from metric_module.inference.items import find_gallery
from metric_module.serving.app import Server
from tests.helpers.command_line import Command, command_in
from tests.helpers.pages import page
from tests.helpers.serving import running

Capture = pytest.CaptureFixture[str]

TEXT, FILES, COMMANDS = page("use.md")
QUICK = ("trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "logger=csv", "report=false")
SMALL = ("encoder.widths=[4,4,4]", "encoder.embedding_dim=8", "trainer.max_steps=3", "datamodule.num_workers=0")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run ``first``, the files of the page, and the pictures that one of them writes."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        assert command_in(folder, patch)(*SMALL, *QUICK, "hydra.run.dir=first") == 0
        patch.chdir(folder)
        for name, content in FILES.items():
            (folder / name).write_text(content)
        runpy.run_path("pictures.py")
    return folder


@pytest.fixture
def command(home: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    return command_in(home, monkeypatch)


def two_of_a_class(home: Path) -> list[str]:
    folder = min(path for path in (home / "pictures").iterdir() if len([*path.iterdir()]) > 1)
    return [str(path.relative_to(home)) for path in sorted(folder.iterdir())[:2]]


def test_every_block_has_a_name() -> None:
    assert len(FILES) == TEXT.count("```python")


def test_two_images(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(home)
    first, second = two_of_a_class(home)
    monkeypatch.setattr(sys, "argv", ["same.py", first, second])
    runpy.run_path("same.py")
    assert capsys.readouterr().out == f"{Embedder.load('first').same(first, second)}\n"
    lines = [line for line in FILES["same.py"].splitlines() if line and not line.startswith(("#", "import sys"))]
    assert len(lines) == 3


def test_use(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    made = runpy.run_path("use.py")
    files = made["files"]
    assert made["found"].positions[:, 0].tolist() == [0, 1]
    assert float(made["distances"][0, 0]) == 0
    read = EmbeddingIndex.read("pictures.arrow", made["embedder"])
    assert list(read.names) == [str(file) for file in files]
    assert list(read.labels) == [file.parent.name for file in files]


@pytest.mark.integration
def test_the_other_scripts(home: Path, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Milvus, ONNX and the client of a server."""
    (first, second), embedder = two_of_a_class(home), Embedder.load(home / "first")
    for line in [line for line in COMMANDS if "task=export" in line]:
        assert command(*shlex.split(line, comments=True)[2:]) == 0
    monkeypatch.chdir(home)
    assert torch.equal(Embedder.load("exported/model").embed([first]), embedder.embed([first]))
    runpy.run_path("large.py")
    monkeypatch.setattr(sys, "argv", ["embed_onnx.py", "onnx/encoder.onnx", first])
    runpy.run_path("embed_onnx.py")
    assert capsys.readouterr().out.endswith("(1, 8)\n")
    index = find_gallery("pictures", embedder)
    with running(Server(embedder, index).application()) as address:
        monkeypatch.setattr(sys, "argv", ["ask.py", address, first, second])
        runpy.run_path("ask.py")
    assert capsys.readouterr().out.endswith(f"{ {'labels': index.identify([first, second])} }\n")


@pytest.mark.parametrize("line", [line for line in COMMANDS if "task=search" in line])
def test_search(line: str, home: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = two_of_a_class(home)
    line = line.replace("pictures/<class>/<id>.png", one, 1).replace("pictures/<class>/<id>.png", two)
    words = shlex.split(line.replace("pictures/alien-monster", str(Path(one).parent)))
    assert words[:2] == ["python", "run.py"]
    assert command(*words[2:]) == 0
    assert "written to" in capsys.readouterr().out
