"""Reader of Omniglot: letters of fifty alphabets, each drawn by twenty people (Lake et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from typing_extensions import override

from datamodules.checks import check_folder
from datamodules.published.listing import Listing, Reader
from datamodules.sampling.grouping import codes

FOLDERS = ("images_background", "images_evaluation")


@dataclass(unsafe_hash=True)
class Omniglot(Reader):
    """32,460 drawings of 1,623 letters: ``images_background/`` (30 alphabets), ``images_evaluation/`` (20).

    A class is a letter of an alphabet, ``Latin/character01``. The background set is for training, the evaluation set is
    the test, and validation holds out whole alphabets of the background set. ``datamodule.class_turns`` adds turned
    letters as new classes (Santoro et al. 2016, with quarter turns).
    """

    name: ClassVar[str] = "Omniglot"
    counts: ClassVar[Mapping[str, int]] = {
        "training images": 19280,
        "training classes": 964,
        "test images": 13180,
        "test classes": 659,
    }

    @override
    def __call__(self, root: Path) -> Listing:
        """List the images, see :class:`Reader`."""
        files = [file for folder in FOLDERS for file in sorted(check_folder(root / folder).glob("*/*/*.png"))]
        paths = [file.relative_to(root) for file in files]
        labels, names = codes(["/".join(path.parts[1:3]) for path in paths])
        return Listing(
            paths=[str(path) for path in paths],
            labels=labels,
            class_names=names,
            test=torch.tensor([path.parts[0] == "images_evaluation" for path in paths], dtype=torch.bool),
            units=[name.split("/")[0] for name in names],
        )
