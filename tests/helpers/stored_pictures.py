"""Small pictures in five classes, and data modules that read them from a folder, a table or a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from datamodules import ImageFolderDataModule, ManifestDataModule
from metric_module.batch import Batch

CLASSES = ("a b", "bé", "c", "d", "e%f")


def write_pictures(folder: Path) -> Path:
    """Write five classes of four images."""
    random = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 256, (12, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number} x.png")
    return folder


def table_of(pictures: Path, **more: list[str]) -> dict[str, list[str]]:
    files = sorted(pictures.glob("*/*.png"))
    return {
        "file": [f"{path.parent.name}/{path.name}" for path in files],
        "name": [path.parent.name for path in files],
    } | more


def folder(root: object, cache: Path, workers: int = 0, **more: Any) -> ImageFolderDataModule:
    return ImageFolderDataModule(
        root=str(root), classes_per_batch=3, samples_per_class=2, image_size=8, num_workers=workers,
        cache_dir=str(cache), **more,
    )  # fmt: skip


def manifest(table: object, cache: Path, **more: Any) -> ManifestDataModule:
    root = str(table).rpartition("table.")[0]
    container = str(table).partition("::")
    where = f"{root}pictures{container[1]}{container[2]}"
    settings: dict[str, Any] = {
        "image": "file",
        "root": where,
        "label": "name",
        "classes_per_batch": 3,
        "samples_per_class": 2,
        "image_size": 8,
    }
    return ManifestDataModule(table=str(table), cache_dir=str(cache), num_workers=0, **{**settings, **more})


def batches(data: ImageFolderDataModule | ManifestDataModule) -> list[Batch]:
    data.prepare_data()
    data.setup("fit")
    return [*data.train_dataloader(), *data.test_dataloader()]


def assert_equal(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right) > 1
    for one, other in zip(left, right, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
