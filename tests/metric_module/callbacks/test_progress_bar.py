"""Output of a training: the first line, a line for each validation, a bar on a terminal, a table at the end."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest
from omegaconf import DictConfig
from rich.console import Console

from metric_module.tasks import train
from metric_module.tasks.figures import table

Compose = Callable[..., DictConfig]


def test_lines_without_a_terminal(small: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    train(small("trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1"))
    out = capsys.readouterr().out
    assert "Tiny, 108 parameters, 8 steps\n" in out
    lines = [line for line in out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2  step 8  loss 0.")
    for name in ("easy", "semihard", "hard", "val/loss", "val/recall_at_1", "val/map_at_r"):
        assert f"  {name} 0." in lines[1]
    before = [line for line in out.splitlines() if line.startswith("before training  val/loss 0.")]
    assert len(before) == 1 and "  val/recall_at_1 0." in before[0] and "  val/map_at_r 0." in before[0]
    assert out.index("108 parameters") < out.index(before[0]) < out.index(lines[0])
    assert "it/s" not in out
    assert out.rstrip().endswith("/run")
    assert "figure" in out and "map_at_r" in out and "test" in out


def test_a_bar_on_a_terminal(
    small: Compose, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    train(small("trainer.max_epochs=1", "test=false", "callbacks.progress_bar.refresh_rate=1"))
    out = capsys.readouterr().out
    bars = [part for part in out.replace("\n", "\r").split("\r") if "Epoch 0" in part and "loss=" in part]
    assert bars
    assert all(f"{name}=" in bars[-1] for name in ("loss", "easy", "semihard", "hard"))
    assert "v_num" not in out and "train/loss" not in out
    assert "Before training" in out and "Sanity Checking" not in out


@pytest.mark.parametrize(("steps", "epochs", "told"), [(6, 2, True), (8, 2, False), (9, 2, False), (-1, 2, False)])
def test_a_limit_of_steps_that_ends_before_the_epochs(
    small: Compose, capsys: pytest.CaptureFixture[str], steps: int, epochs: int, told: bool
) -> None:
    limits = (f"trainer.max_steps={steps}", f"trainer.max_epochs={epochs}")
    train(small(*limits, "test=false", "report=false", "~callbacks.before_training"))
    line = f"max_steps={steps} ends training before trainer.max_epochs={epochs}; give trainer.max_steps=-1 to train all"
    out = capsys.readouterr().out
    assert (line in out) == told and "before training" not in out


def test_table() -> None:
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(table({"val": {"map_at_r": 0.51239, "queries": 12.0}, "test": {"map_at_r": 1.0}}))
    words = [line.split("│")[1:-1] for line in console.export_text().splitlines() if "│" in line]
    assert [[word.strip() for word in row] for row in words] == [
        ["map_at_r", "0.5124", "1.0000"],
        ["queries", "12", ""],
    ]
