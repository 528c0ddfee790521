"""A reader for each small copy, and its data module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules import PublishedDataModule
from datamodules.published import CUB, LFW, SOP, Cars, InShop, Market, Omniglot, Reader

READERS: dict[str, Reader] = {
    "cub": CUB(),
    "cars": Cars(),
    "sop": SOP(),
    "in_shop": InShop(),
    "market": Market(),
    "lfw": LFW(),
    "omniglot": Omniglot(),
}


def module(root: Path, name: str, **settings: Any) -> PublishedDataModule:
    """The data module of a small tree."""
    given = {"read": READERS[name], "classes_per_batch": 2, "samples_per_class": 2, "image_size": 8, "official": False}
    given |= {"num_workers": 0, "val_fraction": 0.25, "cache_dir": str(root.parent / "cache")}
    return PublishedDataModule(root=str(root), **{**given, **settings})
