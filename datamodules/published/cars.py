"""Reader of Cars196, also called Stanford Cars (Krause et al. 2013). Its lists are MATLAB files, read by SciPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from typing_extensions import override

from datamodules.messages import reason_of
from datamodules.published.listing import Listing, Reader
from metric_module.errors import UserError

TRAINING_CLASSES = 98
BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


@dataclass(unsafe_hash=True)
class Cars(Reader):
    """16,185 cars of 196 models, in either published form; needs ``pip install 'lightning-triplets[cars]'``.

    One form is ``cars_annos.mat`` with ``car_ims/``. The other is ``devkit/cars_meta.mat``,
    ``devkit/cars_train_annos.mat`` with ``cars_train/``, and ``cars_test_annos_withlabels.mat`` (in ``devkit/`` or next
    to it) with ``cars_test/``. The first 98 classes are for training, the last 98 are the test (Song et al. 2016). The
    split of the lists is ignored: it splits the images of every class, which is another task.

    Args:
        crop: Whether to crop to the boxes of the cars. Figures with and without it are not comparable.
    """

    name: ClassVar[str] = "Cars196"
    counts: ClassVar[Mapping[str, int]] = {
        "images": 16185,
        "training images": 8054,
        "training classes": 98,
        "test images": 8131,
        "test classes": 98,
    }
    crop: bool = False

    @override
    def __call__(self, root: Path) -> Listing:
        """List the images, see :class:`Reader`."""
        rows, names = _whole_form(root) if (root / "cars_annos.mat").is_file() else _devkit_form(root)
        labels = torch.tensor([int(row["class"]) for _, row in rows]) - 1  # (N,)
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
            raise UserError(
                f"{root}: expected classes 1 to {len(names)}, got {int(labels.min()) + 1} to {int(labels.max()) + 1}"
            )
        boxes = torch.tensor([[int(row[side]) for side in BOX] for _, row in rows])  # (N, 4)
        boxes[:, :2] -= 1  # MATLAB counts from 1, and its last pixel is inside of the box
        return Listing(
            paths=[path for path, _ in rows],
            labels=labels,
            class_names=[f"{number:03d} {name}" for number, name in enumerate(names, start=1)],
            test=labels >= TRAINING_CLASSES,
            boxes=boxes if self.crop else None,
        )


Row = tuple[str, Mapping[str, Any]]
"""Path and annotation of an image."""


def _whole_form(root: Path) -> tuple[list[Row], list[str]]:
    """Read the rows, and the names of the classes, from ``cars_annos.mat``."""
    path = root / "cars_annos.mat"
    annotations, names = read_mat(path, ["annotations", "class_names"])
    return _rows(path, annotations, "relative_im_path"), names


def _devkit_form(root: Path) -> tuple[list[Row], list[str]]:
    """Read the rows, and the names of the classes, from the files of the development kit."""
    meta = root / "devkit" / "cars_meta.mat"
    if not meta.is_file():
        raise UserError(f"Cars196 in {root}: expected cars_annos.mat or devkit/cars_meta.mat, found neither")
    (names,) = read_mat(meta, ["class_names"])
    labelled = root / "devkit" / "cars_test_annos_withlabels.mat"
    test = labelled if labelled.is_file() else root / labelled.name
    rows: list[Row] = []
    for path, folder in ((root / "devkit" / "cars_train_annos.mat", "cars_train"), (test, "cars_test")):
        (annotations,) = read_mat(path, ["annotations"])
        rows += [(f"{folder}/{name}", row) for name, row in _rows(path, annotations, "fname")]
    return rows, names


def _rows(path: Path, annotations: list[Any], file: str) -> list[Row]:
    """Pair each annotation with the file name in its field ``file``."""
    fields = annotations[0].keys() if annotations and isinstance(annotations[0], dict) else ()
    missing = [name for name in (file, "class", *BOX) if name not in fields]
    if missing:
        raise UserError(f"{path}: annotations without {', '.join(missing)}; they have {', '.join(fields) or 'none'}")
    return [(str(row[file]), row) for row in annotations]


def read_mat(path: Path, names: list[str]) -> list[list[Any]]:
    """Read variables of a MATLAB file as lists, structs as dicts.

    Args:
        path: The file.
        names: The variables.

    Raises:
        UserError: SciPy, the file or a variable is missing, or the file cannot be read.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UserError("Cars196: its lists need SciPy: pip install 'lightning-triplets[cars]'") from None
    if not path.is_file():
        raise UserError(f"no file {path}")
    try:
        content = loadmat(path, variable_names=names, simplify_cells=True)
    except Exception as error:  # SciPy raises many kinds
        raise UserError(f"cannot read {path} ({reason_of(error)})") from None
    missing = [name for name in names if name not in content]
    if missing:
        raise UserError(f"{path}: no variable {', '.join(missing)} in it")
    # simplify_cells turns a list of one element into that element
    return [[*value] if isinstance(value, list | np.ndarray) else [value] for value in map(content.get, names)]
