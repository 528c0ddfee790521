"""Tests of the checks that all data modules share."""

from __future__ import annotations

from typing import Any

import pytest

import datamodules
from metric_module.errors import UserError


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
