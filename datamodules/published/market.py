"""Reader of Market-1501: people seen by six cameras (Zheng et al. 2015)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from typing_extensions import override

from datamodules.checks import check_folder
from datamodules.published.listing import Listing, Reader
from datamodules.sampling.grouping import codes
from metric_module.errors import UserError

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
NAME = re.compile(r"(-1|\d{4})_c(\d)s\d_")
JUNK, DISTRACTOR = "-1", "0000"


@dataclass(unsafe_hash=True)
class Market(Reader):
    """32,668 boxes around 1,501 people: ``bounding_box_train/``, ``query/``, ``bounding_box_test/``.

    Identity and camera are part of the file name, ``0002_c1s1_000451_03.jpg``. Boxes of identity -1 are junk, which
    counts neither as hit nor as miss, so they are not read; 3,819 of the 19,732 gallery images are junk. Boxes of
    identity 0000 show nobody of the test (distractors): they stay in the gallery, each as a separate class, so that no
    two of them count as the same person.
    """

    name: ClassVar[str] = "Market-1501"
    counts: ClassVar[Mapping[str, int]] = {
        "training images": 12936,
        "training classes": 751,
        "queries": 3368,
        "query classes": 750,
        "gallery images": 15913,
    }

    @override
    def __call__(self, root: Path) -> Listing:
        """List the images, see :class:`Reader`."""
        paths, people, cameras, folders = [], [], [], []
        for folder in FOLDERS:
            for file in sorted(check_folder(root / folder).glob("*.jpg")):
                found = NAME.match(file.name)
                if found is None:
                    raise UserError(f"{file}: expected a name such as 0002_c1s1_000451_03.jpg")
                if found[1] != JUNK:
                    paths.append(f"{folder}/{file.name}")
                    people.append(file.stem if found[1] == DISTRACTOR else found[1])
                    cameras.append(int(found[2]))
                    folders.append(FOLDERS.index(folder))
        labels, names = codes(people)
        return Listing(
            paths=paths,
            labels=labels,
            class_names=names,
            test=torch.tensor(folders) > 0,
            groups=torch.tensor(cameras),
            queries=torch.tensor(folders) == FOLDERS.index("query"),
        )
