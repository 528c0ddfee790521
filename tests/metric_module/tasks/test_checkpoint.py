"""A run made by commit 101b28f, whose checkpoints and options have old names: it is evaluated, and resumed to its end.

It was stopped in its third epoch of four. ``expected.json`` has the figures of 101b28f for its ``best.ckpt``, and for
the end of the same run without a stop. ``datamodule``, ``scheduler`` and ``logger.csv`` have names that moved.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.command_line import Command, command_in

RUN = Path(__file__).resolve().parents[2] / "fixtures" / "run_101b28f"
EXPECTED: dict[str, dict[str, dict[str, float]]] = json.loads((RUN / "expected.json").read_text())


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    shutil.copytree(RUN, tmp_path / "run")
    return command_in(tmp_path, monkeypatch)


def figures(folder: Path) -> Any:
    return json.loads((folder / "metrics.json").read_text())


def compared(row: dict[str, float]) -> dict[str, float]:
    """Leave out the loss, which was of the whole set at that time, and is of batches now, and what is new."""
    return {name: value for name, value in row.items() if name not in {"loss", "best_threshold", "best_step"}}


def test_its_best_checkpoint_is_evaluated(tmp_path: Path, command: Command) -> None:
    words = ("task=evaluate", "ckpt_path=run/checkpoints/best.ckpt", "trainer.accelerator=cpu", "report=false")
    assert command(*words, "hydra.run.dir=again") == 0
    for stage, row in EXPECTED["best"].items():
        assert compared(figures(tmp_path / "again")[stage]) == pytest.approx(compared(row), abs=1e-3)


def test_it_is_resumed_to_its_end(tmp_path: Path, command: Command) -> None:
    assert command("resume=run") == 0
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 20
    for stage, row in EXPECTED["end"].items():
        assert compared(figures(tmp_path / "run")[stage]) == pytest.approx(compared(row), abs=1e-2)
    assert EXPECTED["end"]["val"]["recall_at_1"] > EXPECTED["best"]["val"]["recall_at_1"] + 0.01


def test_without_the_table_it_would_be_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("metric_module.config.renamed.RENAMED", {})
    assert command("resume=run") == 2
    assert "'datamodules.emoji.EmojiDataModule' comes from a file" in capsys.readouterr().err
    assert command("task=evaluate", "ckpt_path=run/checkpoints/best.ckpt", "hydra.run.dir=again") == 2
    assert "'datamodules.emoji.EmojiDataModule' comes from a file" in capsys.readouterr().err
