"""CUB-200-2011: birds (Wah et al. 2011)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from typing_extensions import override

from datamodules.published.listing import Listing, Reader, read_table, whole
from datamodules.sampling.grouping import codes
from metric_module.errors import UserError

TRAINING_CLASSES = 100


@dataclass(frozen=True)
class CUB(Reader):
    """11,788 birds of 200 species: ``images.txt``, ``image_class_labels.txt``, ``classes.txt``, ``images/``.

    The first 100 classes are for training, the last 100 are the test (Song et al. 2016). ``train_test_split.txt``
    divides the images of every class, which is another task, and is not read.

    Args:
        crop: Whether to cut out the birds, by ``bounding_boxes.txt``. Figures with and without do not compare.
    """

    name: ClassVar[str] = "CUB-200-2011"
    crop: bool = False

    @override
    def __call__(self, root: Path) -> Listing:
        """See :class:`Reader`."""
        images, numbers = root / "images.txt", root / "image_class_labels.txt"
        paths = dict(read_table(images, 2))
        of_image = dict(read_table(numbers, 2))
        names = dict(read_table(root / "classes.txt", 2))
        strange = [*(paths.keys() ^ of_image.keys()), *(set(of_image.values()) - names.keys())]
        if strange:
            raise UserError(f"{root}: {images.name}, {numbers.name} and classes.txt differ, first at {min(strange)!r}")
        of_class = [of_image[image] for image in paths]
        labels, class_names = codes([names[number] for number in of_class])
        return Listing(
            paths=[f"images/{path}" for path in paths.values()],
            labels=labels,
            class_names=class_names,
            test=torch.tensor(whole(numbers, of_class)) > TRAINING_CLASSES,
            boxes=_boxes(root / "bounding_boxes.txt", list(paths)) if self.crop else None,
        )

    @override
    def counts(self) -> Mapping[str, int]:
        """See :class:`Reader`."""
        return {
            "images": 11788,
            "training images": 5864,
            "training classes": 100,
            "test images": 5924,
            "test classes": 100,
        }


def _boxes(path: Path, images: list[str]) -> torch.Tensor:
    """From left, top, width and height of each image to two corners, int64 ``(N, 4)``."""
    rows = {row[0]: [float(word) for word in row[1:]] for row in read_table(path, 5)}
    missing = [image for image in images if image not in rows]
    if missing:
        raise UserError(f"{path}: expected a box of each image, got none of {missing[0]}")
    left, top, width, height = torch.tensor([rows[image] for image in images]).unbind(1)  # (N,) each
    return torch.stack([left, top, left + width, top + height], dim=1).round().long()
