"""Reader of CUB-200-2011: birds (Wah et al. 2011)."""

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


@dataclass(unsafe_hash=True)
class CUB(Reader):
    """11,788 birds of 200 species: ``images.txt``, ``image_class_labels.txt``, ``classes.txt``, ``images/``.

    The first 100 classes are for training, the last 100 are the test (Song et al. 2016). ``train_test_split.txt`` is
    ignored: it splits the images of every class, which is another task.

    Args:
        crop: Whether to crop to the boxes of ``bounding_boxes.txt``. Figures with and without it are not comparable.
    """

    name: ClassVar[str] = "CUB-200-2011"
    counts: ClassVar[Mapping[str, int]] = {
        "images": 11788,
        "training images": 5864,
        "training classes": 100,
        "test images": 5924,
        "test classes": 100,
    }
    crop: bool = False

    @override
    def __call__(self, root: Path) -> Listing:
        """List the images, see :class:`Reader`."""
        images, numbers = root / "images.txt", root / "image_class_labels.txt"
        paths, classes, names = (dict(read_table(path, 2)) for path in (images, numbers, root / "classes.txt"))
        different = [*(paths.keys() ^ classes.keys()), *(set(classes.values()) - names.keys())]
        if different:
            raise UserError(
                f"{root}: {images.name}, {numbers.name} and classes.txt differ, first at {min(different)!r}"
            )
        class_numbers = [classes[image] for image in paths]
        labels, class_names = codes([names[number] for number in class_numbers])
        return Listing(
            paths=[f"images/{path}" for path in paths.values()],
            labels=labels,
            class_names=class_names,
            test=torch.tensor(whole(numbers, class_numbers)) > TRAINING_CLASSES,
            boxes=_boxes(root / "bounding_boxes.txt", list(paths)) if self.crop else None,
        )


def _boxes(path: Path, images: list[str]) -> torch.Tensor:
    """Read the box of each image as left, top, right and bottom, int64 ``(N, 4)``."""
    rows = {row[0]: [float(word) for word in row[1:]] for row in read_table(path, 5)}
    missing = [image for image in images if image not in rows]
    if missing:
        raise UserError(f"{path}: expected a box for each image, got none for {missing[0]}")
    left, top, width, height = torch.tensor([rows[image] for image in images]).unbind(1)  # (N,) each
    return torch.stack([left, top, left + width, top + height], dim=1).round().long()
