"""Code and commands of docs/text.md, run as they stand, with a tiny model in place of a real one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch

from tests.helpers.command_line import command_in
from tests.helpers.pages import page, written

TEXT, FILES, COMMANDS = page("text.md")
QUICK = ["trainer.fast_dev_run=true", "trainer.accelerator=cpu", "datamodule.classes_per_batch=3"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the page, in a folder from which they can be imported."""
    rows = [f"{label} {number},{label}" for label in "abcdefghi" for number in range(4)]
    (tmp_path / "table.csv").write_text("\n".join(["text,label", *rows]))
    with written(FILES, tmp_path, monkeypatch) as made:
        yield made


def test_every_block_has_a_name() -> None:
    assert len(FILES) == TEXT.count("```python") + TEXT.count("```yaml") == 3
    assert len(COMMANDS) == 8


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_run(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tiny_text: str) -> None:
    python, script, *words = shlex.split(line.replace("<folder>", tiny_text).replace("<table.csv>", "table.csv"))
    assert (python, script) == ("python", "run.py")
    real = "encoder=char_conv_net" not in words
    small = [f"encoder.model={tiny_text}"] if real else ["encoder.width=16"]
    small += ["datamodule.eval_batch_size=200"] if "territories" in " ".join(words) else []
    assert command_in(folder, monkeypatch)(*words, *small, *QUICK) == 0


def test_by_hand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    made = import_module("by_hand")
    assert made.found.shape == (3, 16)
    assert made.trainer.global_step == 2
    assert torch.isfinite(made.found).all()
    assert made.data.show([0]) == ["mouse"]
