"""Cars196, also called Stanford Cars (Krause et al. 2013). Its lists are MATLAB files, which SciPy reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from typing_extensions import override

from datamodules.published.listing import Listing, Reader
from metric_module.errors import UserError

TRAINING_CLASSES = 98
BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


@dataclass(frozen=True)
class Cars(Reader):
    """16,185 cars of 196 models, in either published form; needs ``pip install 'lightning-triplets[cars]'``.

    One has ``cars_annos.mat`` and ``car_ims/``; the other ``devkit/cars_meta.mat``, ``devkit/cars_train_annos.mat``
    with ``cars_train/``, and ``cars_test_annos_withlabels.mat`` (in ``devkit/`` or beside it) with ``cars_test/``. The
    first 98 classes are for training, the last 98 are the test (Song et al. 2016); the lists' own halves divide the
    images of every class, which is another task, and are not looked at.

    Args:
        crop: Whether to cut out the cars, by their boxes. Figures with and without do not compare.
    """

    name: ClassVar[str] = "Cars196"
    crop: bool = False

    @override
    def __call__(self, root: Path) -> Listing:
        """See :class:`Reader`."""
        rows, names = _whole_form(root) if (root / "cars_annos.mat").is_file() else _devkit_form(root)
        labels = torch.tensor([int(row["class"]) for _, row in rows]) - 1  # (N,)
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
            raise UserError(
                f"{root}: expected classes 1 to {len(names)}, got {int(labels.min()) + 1} to {int(labels.max()) + 1}"
            )
        boxes = torch.tensor([[int(row[side]) for side in BOX] for _, row in rows])  # (N, 4)
        boxes[:, :2] -= 1  # MATLAB counts from 1, and its last pixel is inside
        return Listing(
            paths=[path for path, _ in rows],
            labels=labels,
            class_names=[f"{number:03d} {name}" for number, name in enumerate(names, start=1)],
            test=labels >= TRAINING_CLASSES,
            boxes=boxes if self.crop else None,
        )

    @override
    def counts(self) -> Mapping[str, int]:
        """See :class:`Reader`."""
        return {
            "images": 16185,
            "training images": 8054,
            "training classes": 98,
            "test images": 8131,
            "test classes": 98,
        }


Row = tuple[str, Mapping[str, Any]]


def _whole_form(root: Path) -> tuple[list[Row], list[str]]:
    """Path and annotation of each image, and the names of the classes, from ``cars_annos.mat``."""
    path = root / "cars_annos.mat"
    content = read_mat(path, ["annotations", "class_names"])
    rows = _rows(path, content["annotations"], "relative_im_path")
    return rows, [str(name) for name in content["class_names"]]


def _devkit_form(root: Path) -> tuple[list[Row], list[str]]:
    """The same from the files of the development kit."""
    meta = root / "devkit" / "cars_meta.mat"
    if not meta.is_file():
        raise UserError(f"Cars196 in {root}: expected cars_annos.mat or devkit/cars_meta.mat, found neither")
    names = [str(name) for name in read_mat(meta, ["class_names"])["class_names"]]
    labelled = root / "devkit" / "cars_test_annos_withlabels.mat"
    test = labelled if labelled.is_file() else root / labelled.name
    rows: list[Row] = []
    for path, folder in ((root / "devkit" / "cars_train_annos.mat", "cars_train"), (test, "cars_test")):
        found = _rows(path, read_mat(path, ["annotations"])["annotations"], "fname")
        rows += [(f"{folder}/{name}", row) for name, row in found]
    return rows, names


def _rows(path: Path, annotations: Any, file: str) -> list[Row]:
    """File name and fields of each annotation."""
    fields = annotations.dtype.names or ()
    missing = [name for name in (file, "class", *BOX) if name not in fields]
    if missing:
        raise UserError(f"{path}: annotations without {', '.join(missing)}; they have {', '.join(fields) or 'none'}")
    return [(str(row[file]), {name: row[name] for name in ("class", *BOX)}) for row in annotations.reshape(-1)]


def read_mat(path: Path, names: list[str]) -> dict[str, Any]:
    """Variables of a MATLAB file, arrays of one element as that element, and lists one-dimensional.

    Args:
        path: The file.
        names: The variables.

    Raises:
        UserError: SciPy or the file is missing, it cannot be read, or has no such variable.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UserError("Cars196: its lists need SciPy: pip install 'lightning-triplets[cars]'") from None
    if not path.is_file():
        raise UserError(f"no file {path}")
    try:
        content = loadmat(path, variable_names=names)
    except Exception as error:  # SciPy raises many kinds
        raise UserError(f"cannot read {path} ({str(error).splitlines()[0]})") from None
    missing = [name for name in names if name not in content]
    if missing:
        raise UserError(f"{path}: no variable {', '.join(missing)} in it")
    return {name: _plain(content[name]) for name in names}


def _plain(array: Any) -> Any:
    """MATLAB wraps every number and every text into an array of one row."""
    flat = array.reshape(-1)
    if flat.dtype == object:
        return [item.reshape(-1)[0] for item in flat]
    if flat.dtype.names:
        for row in flat:
            for name in flat.dtype.names:
                value = row[name]
                row[name] = value.reshape(-1)[0] if getattr(value, "size", 0) else value
    return flat
