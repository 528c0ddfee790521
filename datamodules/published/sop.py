"""Stanford Online Products (Song et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from typing_extensions import override

from datamodules.published.listing import Listing, Reader, read_table, whole
from datamodules.sampling.grouping import codes


@dataclass(frozen=True)
class SOP(Reader):
    """120,053 photographs of 22,634 products on sale: ``Ebay_train.txt``, ``Ebay_test.txt``, ``bicycle_final/``, ...

    The two lists share no product.
    """

    name: ClassVar[str] = "Stanford Online Products"

    @override
    def __call__(self, root: Path) -> Listing:
        """See :class:`Reader`."""
        train, test = (read_table(root / name, 4, skip=1) for name in ("Ebay_train.txt", "Ebay_test.txt"))
        numbers = whole(root / "Ebay_train.txt", [row[1] for row in train])
        numbers += whole(root / "Ebay_test.txt", [row[1] for row in test])
        labels, names = codes([f"product {number:05d}" for number in numbers])
        return Listing(
            paths=[path for *_, path in [*train, *test]],
            labels=labels,
            class_names=names,
            test=torch.arange(len(labels)) >= len(train),
        )

    @override
    def counts(self) -> Mapping[str, int]:
        """See :class:`Reader`."""
        return {
            "training images": 59551,
            "training classes": 11318,
            "test images": 60502,
            "test classes": 11316,
        }
