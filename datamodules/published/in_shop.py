"""Reader of DeepFashion's In-shop Clothes Retrieval Benchmark (Liu et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from typing_extensions import override

from datamodules.published.listing import Listing, Reader, read_table
from datamodules.sampling.grouping import codes
from metric_module.errors import UserError

STATUSES = ("train", "query", "gallery")


@dataclass(unsafe_hash=True)
class InShop(Reader):
    """52,712 photos of 7,982 items of clothing: ``Eval/list_eval_partition.txt`` and ``Img/img/``, or ``img/``.

    Each item of the test has queries and gallery images.
    """

    name: ClassVar[str] = "In-shop Clothes Retrieval"
    counts: ClassVar[Mapping[str, int]] = {
        "images": 52712,
        "training images": 25882,
        "training classes": 3997,
        "queries": 14218,
        "query classes": 3985,
        "gallery images": 12612,
    }

    @override
    def __call__(self, root: Path) -> Listing:
        """List the images, see :class:`Reader`."""
        path = root / "Eval" / "list_eval_partition.txt"
        rows = read_table(path, 3, skip=2)
        unknown = [status for *_, status in rows if status not in STATUSES]
        if unknown:
            raise UserError(f"{path}: expected one of {', '.join(STATUSES)} in the last column, got {unknown[0]!r}")
        prefix = "Img/" if (root / "Img").is_dir() else ""
        labels, names = codes([item for _, item, _ in rows])
        return Listing(
            paths=[f"{prefix}{name}" for name, _, _ in rows],
            labels=labels,
            class_names=names,
            test=torch.tensor([status != "train" for *_, status in rows]),
            queries=torch.tensor([status == "query" for *_, status in rows]),
        )
