"""report.html of a run: written after the figures, switched off, failing, and of a checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from metric_module import UserError
from metric_module.distances import Euclidean
from metric_module.evaluation import RetrievalMetric, VerificationMetric
from metric_module.evaluation.metrics.of_classes import MetricGroup
from metric_module.tasks import evaluate, train
from metric_module.tasks.run_report import read_items

Compose = Callable[..., DictConfig]


def parts(path: Path) -> dict[str, str]:
    """The sections of a page by their title."""
    pieces = path.read_text(encoding="utf-8").split("<section ")[1:]
    return {piece.split("<h2>")[1].split("</h2>")[0]: piece for piece in pieces}


def test_training_leaves_a_report(small: Compose, tmp_path: Path) -> None:
    train(small("miner=semihard"))
    found = parts(tmp_path / "run" / "report.html")
    assert len(found) == 9
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Read on test after 8 steps of training: 12 samples of 3 classes. None of these classes" in text
    assert "cloud 15, sample 60" in found["Queries"]
    assert "The same 12 samples of val before training" in found["Distances"]
    for step in (1, 5, 8):
        assert f"step {step} of 8; Semihard, margin 0.4" in found["Mined triplets"]
    assert 'data-figure="census"' in found["Training"]
    assert "lightning" in found["Set-up"] and "margin: 0.4" in found["Set-up"]


def test_val_is_described_where_test_is_left_alone(small: Compose, tmp_path: Path) -> None:
    train(small("test=false"))
    assert "Read on val after 8 steps" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_no_report_and_nothing_kept_for_one(small: Compose, tmp_path: Path) -> None:
    train(small("report=false", "test=false"))
    assert not (tmp_path / "run" / "report.html").exists()
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert not [key for key in state["callbacks"] if key.startswith("MinedTriplets")]


def test_a_report_changes_no_weight(small: Compose, tmp_path: Path) -> None:
    for word in ("true", "false"):
        train(small(f"report={word}", "test=false", folder=word))
    one, two = (
        torch.load(tmp_path / word / "checkpoints" / "last.ckpt", weights_only=True) for word in ("true", "false")
    )
    assert all(torch.equal(value, two["state_dict"][name]) for name, value in one["state_dict"].items())
    assert (tmp_path / "true" / "metrics.csv").read_text() == (tmp_path / "false" / "metrics.csv").read_text()


def test_a_resumed_run_knows_its_beginning(small: Compose, tmp_path: Path) -> None:
    train(small("test=false", "trainer.max_epochs=1"))
    train(small("test=false", "trainer.max_epochs=3", "ckpt_path=last"))
    found = parts(tmp_path / "run" / "report.html")
    assert "The same 12 samples of val before training" in found["Distances"]
    assert "step 1 of 4" in found["Mined triplets"] and "step 12 of 12" in found["Mined triplets"]
    before = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    train(small("test=false", "trainer.max_epochs=3", "ckpt_path=last"))
    again = parts(tmp_path / "run" / "report.html")
    assert again["Distances"] == found["Distances"] and again["Queries"] == found["Queries"], before[:200]


def test_a_checkpoint_that_is_evaluated(small: Compose, tmp_path: Path) -> None:
    train(small("test=false", "trainer.max_epochs=1"))
    evaluate(small(f"ckpt_path='{tmp_path}/run/checkpoints/best.ckpt'", "task=evaluate", folder="again"))
    found = parts(tmp_path / "again" / "report.html")
    assert "This run trained nothing." in found["Training"] and "This run trained nothing." in found["Mined triplets"]
    assert "12 samples of test. Their distances before training were not recorded" in found["Distances"]
    assert "cloud 15, sample 60" in found["Queries"]


def test_a_dry_run_tries_the_report_too(small: Compose, tmp_path: Path) -> None:
    train(small("trainer.fast_dev_run=true"))
    assert len(parts(tmp_path / "run" / "report.html")) == 9


def test_a_report_that_fails_loses_nothing(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: Any, ids: Sequence[int]) -> list[str]:
        return ["one"]

    monkeypatch.setattr("tests.helpers.small.Clouds.show", broken, raising=False)
    figures = train(small("trainer.max_epochs=1"))
    assert figures["test/recall_at_1"] == json.loads((tmp_path / "run/metrics.json").read_text())["test"]["recall_at_1"]
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert re.search(
        r"run/report.html was not written: UserError: datamodule.show: expected \d+ pictures .* got 1;", told
    )
    assert "the figures are safe in metrics.json, debug=true shows the stack trace" in told
    assert not (tmp_path / "run" / "report.html").exists()
    with pytest.raises(UserError, match=r"datamodule.show: expected \d+ pictures or texts, got 1"):
        train(small("trainer.max_epochs=1", "debug=true", folder="loud"))
    assert (tmp_path / "loud" / "metrics.json").exists()


def test_figures_are_shown_although_they_cannot_be_written(
    small: Compose, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise UserError("metrics.json: cannot write it (No space left on device)")

    monkeypatch.setattr("metric_module.tasks.figures.write_metrics", full)
    with pytest.raises(UserError, match=r"metrics.json: cannot write"):
        train(small("trainer.max_epochs=1", "test=false", "report=false"))
    assert "map_at_r" in capsys.readouterr().out.split("figure")[1]


def test_queries_and_a_gallery_of_their_own() -> None:
    """The queries are the even rows, and the odd rows are searched."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat_interleave(6)
    embeddings = torch.randn(24, 3, generator=generator) + labels[:, None]
    asked = torch.arange(24) % 2 == 0
    metric = VerificationMetric()
    metric.update(embeddings, labels, torch.arange(24) + 50, queries=asked)
    items, found, ranked_to = read_items(metric, Euclidean())
    assert ranked_to is None
    assert items.gallery.tolist() == list(range(1, 24, 2))
    assert found.rows.tolist() == list(range(0, 24, 2))
    ranks = torch.cdist(embeddings[asked], embeddings[~asked]).argsort(dim=1)
    first = (labels[~asked][ranks] == labels[asked][:, None]).int().argmax(dim=1) + 1
    assert found.first.tolist() == first.tolist() and len(set(first.tolist())) > 1


@pytest.mark.parametrize("all_ranks", [True, False])
def test_the_figures_of_the_queries_are_those_of_the_metric(monkeypatch: pytest.MonkeyPatch, all_ranks: bool) -> None:
    monkeypatch.setattr("metric_module.tasks.run_report.retrieval_per_query", None)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat_interleave(6)
    metric = MetricGroup([VerificationMetric(), RetrievalMetric(recall_at=(1, 5), all_ranks=all_ranks)])
    metric.update(torch.randn(24, 3, generator=generator), labels, torch.arange(24) + 50)
    figures = metric.compute()
    _, found, ranked_to = read_items(metric, Euclidean())
    assert found.map_at_r.mean().item() == pytest.approx(figures["map_at_r"]) and 0 < figures["map_at_r"] < 1
    assert ranked_to == (None if all_ranks else 5)


def test_a_run_without_retrieval_has_a_report_too(small: Compose, tmp_path: Path) -> None:
    train(small("evaluation=verification", "monitor=val/roc_auc", "trainer.max_epochs=1"))
    found = parts(tmp_path / "run" / "report.html")
    assert "roc_auc" in found["Figures"] and "recall_at_1" not in found["Figures"]
    assert found["Queries"].count('<li class="query card"') == 12
