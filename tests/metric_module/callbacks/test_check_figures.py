"""Tests of the figures that are missed before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule

from datamodules import ArraysDataModule
from metric_module import UserError
from metric_module.callbacks import CheckFigures
from metric_module.callbacks.check_figures import labelled
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.evaluation import MetricGroup, RetrievalMetric, VerificationMetric
from tests.helpers.training import module, trainer


def data(val: int, test: int) -> ArraysDataModule:
    """Make eight training classes, and four of ``val`` and four of ``test`` samples each."""
    sizes = torch.tensor([4] * 8 + [val] * 4 + [test] * 4)
    labels = torch.arange(16).repeat_interleave(sizes)
    split = torch.tensor([0] * 8 + [1] * 4 + [2] * 4).repeat_interleave(sizes)
    inputs = torch.randn(len(labels), 5, generator=torch.Generator().manual_seed(0))
    return ArraysDataModule(4, 2, arrays={"inputs": inputs, "labels": labels, "split": split}, num_workers=0)


def fit(folder: Path, made: Any, **settings: Any) -> int:
    """Train for a step, and return the number of steps."""
    check = CheckFigures("val/map_at_r", **settings)
    own = module()
    own.metric = MetricGroup([RetrievalMetric(), VerificationMetric()])
    runs = trainer(folder, max_steps=1, callbacks=[check], limit_val_batches=0)
    runs.fit(own, datamodule=made)
    return int(runs.global_step)


def test_test_classes_of_one_sample_are_named_before_the_first_step(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"^data: test cannot have the figures (recall_at_\*|roc_auc), ") as warned:
        assert fit(tmp_path, data(3, 1)) == 1
    assert [
        str(warning.message).split(", which")[1] for warning in warned if "cannot have" in str(warning.message)
    ] == [
        " are left out: none of 4 queries has another item of its class (datamodule: labels, split)",
        " are left out: each of 4 classes has a single sample (datamodule: labels, split)",
    ]
    assert fit(tmp_path, data(3, 1), test=False) == 1
    assert fit(tmp_path, data(3, 3)) == 1


def test_training_needs_the_monitored_figure(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^monitor=val/map_at_r: val cannot have this figure: none of 4 queries has"):
        fit(tmp_path, data(1, 3))


def test_data_that_says_nothing_is_not_checked() -> None:
    assert labelled(DataModuleFacts(LightningDataModule()), "val") is None
