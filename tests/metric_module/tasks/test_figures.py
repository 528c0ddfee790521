"""Figures from before training beside those after it, and what is said if training did not help."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig

from metric_module.distances import Euclidean
from metric_module.evaluation import RetrievalMetric
from metric_module.storage.checkpoints import load_checkpoint
from metric_module.tasks import evaluate, train
from metric_module.tasks.figures import no_help

Compose = Callable[..., DictConfig]
SHORT = ("report=false", "test=false")


def written(folder: Path) -> Any:
    return json.loads((folder / "metrics.json").read_text())


def test_a_run_shows_where_it_started(small: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = train(small("optimizer.lr=0.03", "report=false", "trainer.max_epochs=8"))
    found = written(tmp_path / "run")
    assert set(found) == {"raw", "before", "val", "test"}
    assert found["raw"]["queries"] == found["before"]["queries"] == found["val"]["queries"] == 12
    for stage in ("raw", "before", "val"):
        assert figures[f"{stage}/map_at_r"] == pytest.approx(found[stage]["map_at_r"])
    best = load_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert found["val"]["best_step"] == figures["val/best_step"] == best["global_step"] > 0
    printed = capsys.readouterr().out
    assert printed.index("before training  val/loss") < printed.index("epoch 1  step")
    header = next(line for line in printed.splitlines() if "figure" in line)
    assert [name.strip() for name in header.split("┃")[1:-1]] == ["figure", "raw", "before", "val", "test"]


def test_an_untrained_run_keeps_step_0_and_says_so(
    small: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small(*SHORT, "optimizer.lr=1e-12", "optimizer.weight_decay=0"))
    found, printed = written(tmp_path / "run"), capsys.readouterr().out
    assert found["val"]["best_step"] == 0 and found["val"]["map_at_r"] == found["before"]["map_at_r"]
    value = found["val"]["map_at_r"]
    assert f"training did not help: val/map_at_r {value:.4f} after training, {value:.4f} before" in printed
    assert "│ best_step" in printed and "│      0 │" in printed


def test_an_evaluation_has_no_figures_from_before(small: Compose, tmp_path: Path) -> None:
    train(small(*SHORT))
    evaluate(small(*SHORT, "task=evaluate", f"ckpt_path='{tmp_path}/run/checkpoints/best.ckpt'", folder="again"))
    assert set(written(tmp_path / "again")) == {"val"} and "best_step" not in written(tmp_path / "again")["val"]


def test_a_resumed_run_keeps_its_start(small: Compose, tmp_path: Path) -> None:
    train(small(*SHORT, "trainer.max_epochs=1"))
    first = written(tmp_path / "run")
    train(small(*SHORT, "trainer.max_epochs=3", "ckpt_path=last"))
    again = written(tmp_path / "run")
    assert again["raw"] == first["raw"] and again["before"] == first["before"] and len(first["before"]) > 5


def test_without_the_callback(small: Compose, tmp_path: Path) -> None:
    train(small(*SHORT, "~callbacks.before_training"))
    assert set(written(tmp_path / "run")) == {"val"} and written(tmp_path / "run")["val"]["best_step"] > 0


@pytest.mark.parametrize(
    ("monitor", "val", "before", "raw", "told"),
    [
        ("val/map_at_r", 0.6, 0.5, 0.55, None),
        ("val/map_at_r", 0.6, 0.5, 0.6, None),
        ("val/map_at_r", 0.6, None, None, None),
        ("val/map_at_r", None, 0.5, 0.6, None),
        (None, 0.6, 0.7, 0.7, None),
        ("val/map_at_r", 0.5, 0.5, 0.4, "0.5000 after training, 0.5000 before, 0.4000 for the raw inputs"),
        ("val/map_at_r", 0.6, 0.5, 0.7, "0.6000 after training, 0.5000 before, 0.7000 for the raw inputs"),
        ("val/map_at_r", 0.4, 0.5, None, "0.4000 after training, 0.5000 before"),
        ("val/loss", 0.4, 0.5, None, None),
        ("val/loss", 0.6, 0.5, None, "0.6000 after training, 0.5000 before"),
    ],
)
def test_training_that_did_not_help(
    monitor: str | None, val: float | None, before: float | None, raw: float | None, told: str | None
) -> None:
    name = (monitor or "val/map_at_r").removeprefix("val/")
    values = {"val": val, "before": before, "raw": raw}
    figures = {stage: {name: value} for stage, value in values.items() if value is not None}
    line = no_help(figures, monitor, parts("image"), {})
    assert (line is None) == (told is None)
    if line is not None:
        assert line.startswith(f"training did not help: {monitor} {told}; try ")


def parts(kind: str, step: int = 40) -> Any:
    module = SimpleNamespace(metric=RetrievalMetric(Euclidean()), preprocessing=SimpleNamespace(kind=kind))
    return SimpleNamespace(module=module, trainer=SimpleNamespace(global_step=step))


@pytest.mark.parametrize(
    ("kind", "encoder", "best", "advice"),
    [
        ("image", {}, 20, "experiment=finetune (a pretrained encoder)"),
        ("text", {}, 20, "experiment=texts (a pretrained encoder)"),
        ("image", {"pretrained": True}, 20, "a lower optimizer.lr"),
        ("vector", {}, 20, "a lower optimizer.lr"),
        ("image", {}, 40, "trainer.max_steps=80"),
        ("image", {}, 0, "experiment=finetune (a pretrained encoder)"),
    ],
)
def test_what_to_try(kind: str, encoder: dict[str, Any], best: int, advice: str) -> None:
    figures = {"before": {"map_at_r": 0.3}, "raw": {"map_at_r": 0.6}, "val": {"map_at_r": 0.5, "best_step": best}}
    line = no_help(figures, "val/map_at_r", parts(kind), encoder)
    assert line is not None and line.endswith(f"; try {advice}, or more classes")
