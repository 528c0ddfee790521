"""Tests of the identification metric: what is left out is named, before the first step and after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from metric_module import UserError
from metric_module.evaluation import IdentificationMetric, MetricGroup, RetrievalMetric
from metric_module.evaluation.preflight import Labelled
from metric_module.tasks import train
from tests.helpers.points import cloud

Compose = Callable[..., DictConfig]
REASON = "expected at least 1000 unknown probes, got {} (evaluation.identification: leave 0.001 out of far)"


def test_a_rate_that_needs_more_unknown_probes_is_left_out_and_named() -> None:
    x, labels = cloud()
    metric = IdentificationMetric(far=(0.1, 0.001))
    for one in (metric, MetricGroup([RetrievalMetric(), metric])):
        one.update(x, labels, torch.arange(len(x)))
        found = one.compute()
        line = f"dir_at_far_1e-3: {REASON.format(int(found['unknown_probes']))}"
        assert one.left_out == [line] and "dir_at_far_1e-3" not in found
        assert 0 < found["dir_at_far_1e-1"] < 1
        one.compute()
        assert one.left_out == [line], "once"


@pytest.mark.parametrize("seed", range(30))
def test_what_is_missing_is_exactly_what_is_not_computed(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    count = int(torch.randint(3, 40, (1,), generator=random))
    labels = torch.randint(-3, 4, (count,), generator=random)
    ids = torch.randperm(count, generator=random)
    metric = IdentificationMetric(enrolled=1 + seed % 3, far=(0.3, 0.1, 0.05), seed=seed)
    metric.update(torch.randn(count, 2, generator=random), labels, ids)
    missing = {name for found in metric.missing(Labelled(labels, ids)) for name in found.figures}
    assert missing == set(metric.figure_names()) - set(metric.compute())
    assert bool(missing) == bool(metric.left_out)


def test_the_main_figure_is_that_of_the_first_rate() -> None:
    assert IdentificationMetric(far=(0.01, 0.1)).main_figure == "dir_at_far_1e-2"
    assert IdentificationMetric(far=()).main_figure == "identification_rate"
    with pytest.raises(UserError, match="enrolled: expected an integer >= 1, got 0"):
        IdentificationMetric(enrolled=0)


def test_a_training_names_what_val_cannot_have_before_its_first_step(small: Compose, tmp_path: Path) -> None:
    labels = np.arange(40).repeat(6)  # 8 classes of val and 8 of test, half of them unknown: 24 probes
    points = np.random.default_rng(0).normal(size=(40, 6))[labels] + np.random.default_rng(1).normal(size=(240, 6))
    np.savez(tmp_path / "points.npz", inputs=points.astype(np.float32), labels=labels)
    data = ("encoder=mlp", "encoder.in_features=6", "datamodule=arrays", f"datamodule.path={tmp_path / 'points.npz'}")
    words = (*data, "evaluation=identification", "trainer.max_epochs=1", "report=false")
    with pytest.warns(UserWarning, match="dir_at_far") as warned:
        figures = train(small(*words))
    lines = [str(one.message) for one in warned if "dir_at_far" in str(one.message)]
    reason = "expected at least {} unknown probes, got 24 (evaluation.identification: leave {} out of far)"
    assert lines[:4] == [
        f"data: {split} cannot have the figures {name}, which are left out: {reason.format(*numbers)}"
        for split in ("val", "test")
        for name, numbers in (("dir_at_far_1e-2", (100, 0.01)), ("dir_at_far_1e-3", (1000, 0.001)))
    ]
    assert lines[4] == f"val: figures are left out: dir_at_far_1e-2: {reason.format(100, 0.01)}"
    for split in ("val", "test"):
        assert 0 < figures[f"{split}/dir_at_far_1e-1"] < figures[f"{split}/identification_rate"] < 1
        assert figures[f"{split}/known_probes"] == 20 and f"{split}/dir_at_far_1e-3" not in figures
    refused = "^monitor=val/dir_at_far_1e-3: val cannot have this figure: expected at least 1000 unknown probes, got 24"
    monitored = ("evaluation.identification.far=[0.1,0.001]", "monitor=val/dir_at_far_1e-3")
    with pytest.raises(UserError, match=refused):
        train(small(*words, *monitored, folder="other"))
    assert not (tmp_path / "other" / "metrics.csv").exists()
