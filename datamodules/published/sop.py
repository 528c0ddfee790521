"""Reader of Stanford Online Products (Song et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from typing_extensions import override

from datamodules.published.listing import Listing, Reader, read_table, whole
from datamodules.sampling.grouping import codes


@dataclass(unsafe_hash=True)
class SOP(Reader):
    """120,053 photos of 22,634 products: ``Ebay_train.txt``, ``Ebay_test.txt``, ``bicycle_final/``, ...

    The lists of training and test share no product.
    """

    name: ClassVar[str] = "Stanford Online Products"
    counts: ClassVar[Mapping[str, int]] = {
        "training images": 59551,
        "training classes": 11318,
        "test images": 60502,
        "test classes": 11316,
    }

    @override
    def __call__(self, root: Path) -> Listing:
        """List the images, see :class:`Reader`."""
        paths, products, test = [], [], []
        for name in ("Ebay_train.txt", "Ebay_test.txt"):
            rows = read_table(root / name, 4, skip=1)
            products += [f"product {number:05d}" for number in whole(root / name, [row[1] for row in rows])]
            paths += [path for *_, path in rows]
            test += [name == "Ebay_test.txt"] * len(rows)
        labels, names = codes(products)
        return Listing(paths, labels, names, torch.tensor(test))
