"""Data sets of Hugging Face's package ``datasets``.

Legend: N = samples, B = samples in a batch, D = numbers of a sample, S = side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from datamodules.augmentation.pixels import IMAGE_AUGMENT, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.messages import reason_of
from datamodules.sampling.dataset import Samples, Source
from datamodules.sampling.splits import SPLITS
from datamodules.sources.columns import (
    Strings,
    encode,
    encode_known,
    encode_labels,
    is_text,
    refuse_missing,
    unlabelled,
)
from datamodules.sources.images import StoredImages
from datamodules.sources.texts import Texts
from datamodules.sources.vectors import Vectors
from metric_module.errors import UserError

OWN_NAMES = {"train": ("train",), "val": ("validation", "val", "valid"), "test": ("test",)}


@dataclass(eq=False, repr=False)
class HuggingFaceDataModule(PKDataModule):
    """A data set written by ``save_to_disk``, or a folder or a name that ``load_dataset`` accepts.

    The input is a column of images (read as :class:`datamodules.ImageFolderDataModule` does), of strings (inputs are
    lists of B strings), or of lists of D numbers (inputs are float32 ``(B, D)``). No code of a data set is run.

    Its own train, validation and test splits are used if they share no class. If they do, or if a split is missing, all
    samples are split anew by class, as :func:`datamodules.split_classes` does, with a warning;
    ``class_disjoint=false`` uses its own splits in any case.

    Args:
        path: Folder or name of the data set.
        input: Column of inputs.
        label: Column of classes: ``ClassLabel``, integers or strings. If the splits name their
            ``ClassLabel`` differently, classes are matched by name, not by number. None, or a data set without the
            default column, only where the samples are embedded.
        class_disjoint: Whether splits must not share classes.
        group: Column of groups such as cameras, integers or strings.
        name: Configuration of the data set, if it has several.
        image_size: S.

    Other arguments are those of :class:`datamodules.PKDataModule`. Only images are augmented by
    default, and classes turned.

    Raises:
        UserError: In ``load``: the package, the data set, a column or a split is missing, or has another type; in
            ``prepare_data``: samples cannot be used.
    """

    _: KW_ONLY
    path: str
    input: str
    label: str | None = "label"
    class_disjoint: bool = True
    group: str | None = None
    name: str | None = None
    image_size: int = 64
    eval_batch_size: int = 256
    num_workers: int = 2
    augment: AugmentFunction | None = IMAGE_AUGMENT
    class_turns: float | None = None

    @override
    def load(self) -> Samples:
        """Open the data set, which stays on disk, and split it.

        Raises:
            UserError: The package, the data set, a column or a split is missing, or has another type.
        """
        required = [self.input, *([self.group] if self.group else [])]
        optional = ["label"] if self.any_items and self.label == "label" else []
        columns = [*required, *([self.label] if self.label and not optional else [])]
        tables = read_columns(self.path, self.name, columns, optional)
        labels, names = self._labels(tables)
        splits = self._splits({name: len(part) for name, part in tables.items()}, labels, len(names))
        groups = None if self.group is None else encode(*self._column(tables, self.group)).codes
        return Samples(self._source(tables), labels, splits, names, groups=groups)

    def _column(self, tables: Mapping[str, Any], name: str) -> tuple[pa.ChunkedArray, str]:
        """Join a column of all splits, and name it for messages."""
        where = f"{self.path}: column {name!r}"
        return _joined(tables, name, where), where

    def _labels(self, tables: Mapping[str, Any]) -> tuple[Tensor, Sequence[str]]:
        first = next(iter(tables.values()))
        if self.label is None or self.label not in first.column_names:
            if not self.any_items:
                raise UserError(
                    "datamodule.label: expected the column of classes, got null; only task=embed needs none"
                )
            codes, values = unlabelled(sum(map(len, tables.values())))
            return codes, Strings(values)
        column, where = self._column(tables, self.label)
        labels, values = (encode_known if self.any_items else encode_labels)(column, where)
        feature = first.features[self.label]
        if not hasattr(feature, "int2str") or is_text(values.type):
            return labels, Strings(values)
        if values[0].as_py() < 0:
            if self.any_items:
                return (labels - 1).clamp(min=-1), [feature.int2str(value) for value in values.to_pylist()[1:]]
            rows = int((labels == 0).sum())
            raise UserError(f"{where}: {rows} samples have no class ({values[0].as_py()})")
        return labels, [feature.int2str(value) for value in values.to_pylist()]

    def _splits(self, sizes: Mapping[str, int], labels: Tensor, classes: int) -> dict[str, Tensor]:
        """Use the data set's own splits, or split the samples anew by class."""
        own = own_splits(sizes)
        reason = f"has no {', '.join(name for name in SPLITS if name not in own)}" if len(own) < 3 else ""
        if not reason:
            known = [labels[ids][labels[ids] >= 0] for ids in own.values()]
            has = torch.stack([part.bincount(minlength=classes) > 0 for part in known])  # (3, C)
            shared = int((has.sum(dim=0) > 1).sum())
            reason = f"shares {shared} of {classes} classes among its splits" if shared else ""
        if not reason:
            return own
        if not self.class_disjoint:
            if len(own) < 3 and not self.any_items:
                raise UserError(f"datamodule.class_disjoint=false: {self.path} {reason}, only {', '.join(sizes)}")
            return own
        if len(sizes) > 1:
            rank_zero_warn(
                f"data: {self.path} {reason}; samples are split anew by class; class_disjoint=false keeps its splits"
            )
        return self.own_split(labels)

    def _source(self, tables: Mapping[str, Any]) -> Source:
        column, where = self._column(tables, self.input)
        refuse_missing(column, where)
        feature = next(iter(tables.values())).features[self.input]
        if type(feature).__name__ == "Image":
            return StoredImages(column, self.image_size)
        return Texts(Strings(column)) if is_text(column.type) else Vectors(column, where)


def read_columns(path: str, name: str | None, columns: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """Read some columns of a data set, for each of its splits.

    Args:
        path: Folder or name of the data set.
        name: Configuration of the data set.
        columns: Columns to read.
        optional: Columns to read as well, if every split has them.

    Raises:
        UserError: The package or the data set is missing, or a column.
    """
    try:
        import datasets
    except ImportError:
        raise UserError("datamodule=hugging_face needs: pip install 'lightning-triplets[huggingface]'") from None
    try:
        saved = any((Path(path) / file).is_file() for file in ("state.json", "dataset_dict.json"))
        found = datasets.load_from_disk(path) if saved else datasets.load_dataset(path, name)
    except Exception as error:  # datasets and its readers raise many kinds
        if saved and isinstance(error, IndexError):  # raised by load_from_disk for a split without files
            raise UserError(f"datamodule.path: {path} has no rows, or a split without any") from None
        raise UserError(f"datamodule.path: cannot read {path} ({reason_of(error)})") from None
    tables = dict(found) if isinstance(found, dict) else {"train": found}
    columns = [*columns, *(name for name in optional if all(name in part.column_names for part in tables.values()))]
    for part, content in tables.items():
        missing = [column for column in columns if column not in content.column_names]
        if missing:
            found_names = ", ".join(content.column_names)
            raise UserError(f"{path}: {part} has no column {', '.join(map(repr, missing))}, only {found_names}")
    chosen = {part: content.select_columns(list(dict.fromkeys(columns))) for part, content in tables.items()}
    return {part: content.flatten_indices() if content._indices else content for part, content in chosen.items()}


def own_splits(sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Number the samples of all splits consecutively, and return the ids of train, val and test, if they exist.

    Args:
        sizes: Number of samples in each split.

    Example:
        >>> {name: ids.tolist() for name, ids in own_splits({"train": 2, "extra": 1, "test": 1}).items()}
        {'train': [0, 1], 'test': [3]}
    """
    starts, total = {}, 0
    for name, size in sizes.items():
        starts[name], total = total, total + size
    found = {}
    for split, names in OWN_NAMES.items():
        own = next((name for name in names if sizes.get(name)), None)
        if own is not None:
            found[split] = torch.arange(starts[own], starts[own] + sizes[own])
    return found


def _joined(tables: Mapping[str, Any], name: str, where: str) -> pa.ChunkedArray:
    """Join a column of all splits; class codes become names if the splits number classes differently.

    Raises:
        UserError: The splits hold values of different types.
    """
    numbered = {tuple(getattr(part.features[name], "names", None) or ()) for part in tables.values()}
    columns = {part: _chunks(content, name, by_name=len(numbered) > 1) for part, content in tables.items()}
    kinds = {part: chunks[0].type for part, chunks in columns.items() if chunks}
    if len(set(kinds.values())) > 1:
        got = ", ".join(f"{kind} in {part}" for part, kind in kinds.items())
        raise UserError(f"{where}: expected one type in all splits, got {got}")
    return pa.chunked_array([chunk for chunks in columns.values() for chunk in chunks])


def _chunks(part: Any, name: str, by_name: bool) -> list[pa.Array]:
    """Read a column of one split; with ``by_name``, the names of a ``ClassLabel``, missing for -1."""
    chunks = part.data.column(name).chunks
    if by_name and hasattr(part.features[name], "int2str"):
        names = pa.array(part.features[name].names, pa.string())
        return [names.take(pc.if_else(pc.less(chunk, 0), None, chunk)) for chunk in chunks]
    return [chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk for chunk in chunks]
