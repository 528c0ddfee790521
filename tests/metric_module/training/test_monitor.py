"""The monitored figure follows the evaluation, and one that no validation logs is found before the first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from metric_module import UserError
from metric_module.config.plain import plain
from metric_module.evaluation import (
    ClusteringMetric,
    EmbeddingMetric,
    FewShotMetric,
    IdentificationMetric,
    InstanceMetric,
    MetricGroup,
    PairRetrievalMetric,
    RetrievalMetric,
    Sought,
    VerificationMetric,
)
from metric_module.relations import Links
from metric_module.tasks import train
from metric_module.tasks.build import build
from metric_module.training.monitor import lower_is_better
from tests.helpers.my_metrics import MainSpread, Spread
from tests.helpers.points import cloud

Compose = Callable[..., DictConfig]

MINE = "+evaluation.mine._target_=tests.helpers.my_metrics"
SHORT = ("trainer.max_epochs=1", "test=false", "report=false")


def saver_of(cfg: DictConfig) -> ModelCheckpoint:
    (saver,) = (one for one in build(cfg).trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint))
    return saver


@pytest.mark.parametrize(
    ("words", "monitor", "mode"),
    [
        ([], "val/map_at_r", "max"),
        (["evaluation=verification"], "val/roc_auc", "max"),
        (["evaluation=few_shot", "evaluation.few_shot.shots=[5,1]"], "val/accuracy_5_way_5_shot", "max"),
        (["evaluation=identification", "evaluation.identification.far=[0.2]"], "val/dir_at_far_2e-1", "max"),
        (["evaluation=clustering"], "val/nmi", "max"),
        (["evaluation=instances"], "val/ari", "max"),
        (["evaluation=pair_retrieval"], "val/ndcg_at_10", "max"),
        (["evaluation=pair_retrieval", "evaluation.pair_retrieval.at=[5,20]"], "val/ndcg_at_20", "max"),
        (["evaluation=[verification,retrieval]"], "val/roc_auc", "max"),
        (["evaluation=verification", "monitor=val/eer"], "val/eer", "min"),
        (["~evaluation.retrieval", f"{MINE}.MainSpread"], "val/spread", "min"),
        (["evaluation=verification", f"{MINE}.Spread"], "val/roc_auc", "max"),
        (["evaluation=verification", f"{MINE}.Spread", "monitor=val/spread"], "val/spread", "min"),
        (["monitor=train/loss"], "train/loss", "min"),
        (["callbacks.best.monitor=null"], None, "max"),
    ],
)
def test_the_monitor_follows_the_evaluation(small: Compose, words: list[str], monitor: str | None, mode: str) -> None:
    cfg = plain(small(*words))
    saver = saver_of(cfg)
    assert (saver.monitor, saver.mode) == (monitor, mode)
    assert monitor is None or cfg.monitor == monitor, "config.yaml shows it"


def test_a_training_without_retrieval_keeps_its_best_checkpoint(small: Compose, tmp_path: Path) -> None:
    figures = train(small("evaluation=verification", *SHORT))
    assert 0 < figures["val/roc_auc"] < 1
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").monitor == "val/roc_auc"
    kept = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["callbacks"]
    assert [state["monitor"] for name, state in kept.items() if name.startswith("ModelCheckpoint")] == ["val/roc_auc"]


@pytest.mark.parametrize("words", [["monitor=val/eer"], ["monitor=map_at_r"], ["callbacks.best.monitor=test/map_at_r"]])
def test_a_figure_that_no_validation_logs_is_found_before_the_first_step(
    small: Compose, tmp_path: Path, words: list[str]
) -> None:
    told = rf"^monitor: expected one of val/loss, val/recall_at_1, .*val/map_at_r, .*got {words[0].partition('=')[2]}$"
    with pytest.raises(UserError, match=told):
        train(small(*words, *SHORT))
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_a_metric_of_the_users_own(small: Compose) -> None:
    only = ("~evaluation.retrieval", f"{MINE}.Spread", *SHORT)
    told = r"^monitor: expected a figure, since none of mine names its main figure; give monitor=val/<figure>$"
    with pytest.raises(UserError, match=told):
        train(small(*only))
    assert train(small(*only, "monitor=val/spread"))["val/spread"] > 0


def test_the_direction_of_a_figure() -> None:
    group = MetricGroup([VerificationMetric(), Spread()])
    names = {"val/eer": True, "val/roc_auc": False, "val/spread": True, "val/loss": True, "epoch": False}
    assert {name: lower_is_better(name, group) for name in names} == names
    assert lower_is_better("val/spread", MainSpread()) and not lower_is_better("val/roc_auc", VerificationMetric())


def test_every_metric_names_the_figures_that_it_has() -> None:
    """With groups, listed pairs, folds and both ways, each figure is named, and nothing else is."""
    x, labels = cloud()
    ids = torch.arange(len(x))
    some = torch.combinations(ids[:12])
    cases: list[tuple[EmbeddingMetric, Any]] = [
        (RetrievalMetric(recall_at=(2, 3)), None),
        (RetrievalMetric(all_ranks=False), None),
        (VerificationMetric(far=(0.1,)), torch.arange(len(some)) % 3),
        (FewShotMetric(ways=3, shots=(1, 2), episodes=5), None),
        (IdentificationMetric(far=(0.2, 0.03)), None),
        (ClusteringMetric(), None),
        (InstanceMetric(), None),
        (PairRetrievalMetric(at=(1, 3), both_ways=True), None),
    ]
    for metric, folds in cases:
        metric.update(x, labels, ids, groups=torch.arange(len(x)) // 4 % 5)
        metric.pairs, metric.folds = (None, None) if folds is None else (some, folds)
        if metric.by_pairs:
            metric.sought = Sought(ids[:10], ids[10:], Links.of(torch.arange(10), torch.arange(10), queries=10))
        figures = metric.compute()
        assert sorted(metric.figure_names(None if folds is None else 3) or ()) == sorted(figures), type(metric)
        assert metric.main_figure in figures
