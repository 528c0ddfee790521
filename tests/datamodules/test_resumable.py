"""Tests of the checks that all data modules share."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import datamodules
from datamodules.sampling.dataset import fingerprint
from metric_module.errors import UserError
from tests.helpers.small import Clouds


@pytest.mark.parametrize(
    ("name", "setting", "more"),
    [
        ("ArraysDataModule", "path", {}),
        ("CaptionsDataModule", "path", {}),
        ("GlyphDataModule", "fonts", {}),
        ("HuggingFaceDataModule", "path", {"input": "image"}),
        ("IDXDataModule", "root", {}),
        ("ImageFolderDataModule", "root", {}),
        ("InteractionsDataModule", "path", {}),
        ("ManifestDataModule", "root", {"table": "t.csv", "image": "image"}),
        ("ManifestDataModule", "table", {"image": "image"}),
        ("MultiLabelDataModule", "path", {}),
        ("PublishedDataModule", "root", {"read": None}),
    ],
)
def test_an_empty_path_is_not_the_current_folder(name: str, setting: str, more: dict[str, Any]) -> None:
    for path in ("", " "):
        with pytest.raises(UserError, match=f"^datamodule.{setting}: expected a path, got {path!r}$"):
            getattr(datamodules, name)(**{setting: path}, **more)


@pytest.mark.parametrize("setting", ["eval_batch_size", "image_size"])
@pytest.mark.parametrize("name", ["ImageFolderDataModule", "CaptionsDataModule"])
def test_numbers_below_the_minimum(name: str, setting: str) -> None:
    given: dict[str, Any] = {"root" if name == "ImageFolderDataModule" else "path": "data", setting: 0}
    with pytest.raises(UserError, match=f"^datamodule.{setting}: expected an integer >= 1, got 0$"):
        getattr(datamodules, name)(**given)


def test_the_state_of_other_data_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    message = "ckpt_path: the checkpoint was trained on other data, or on another split of it (labels, class names or"
    state = Clouds().state_dict()
    Clouds(noise=0.1).load_state_dict(state)  # other inputs for the same labels are not seen
    Clouds().load_state_dict({"epoch": 1, "step": 0})  # as earlier versions wrote it
    folded = Clouds()
    folded.fold = 0
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        folded.load_state_dict(state)
    monkeypatch.setattr("tests.helpers.small.CLASSES", 19)
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        Clouds().load_state_dict(state)


def test_the_same_data_in_another_place_has_the_same_fingerprint() -> None:
    labels = torch.arange(10)
    assert fingerprint(labels, names=["a"]) == fingerprint(labels.clone(), names=["a"])
    others = [fingerprint(labels, names=["b"]), fingerprint(labels[:9], names=["a"]), fingerprint(labels + 1)]
    assert fingerprint(labels, names=["a"]) not in others
