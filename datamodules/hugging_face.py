"""Data sets as Hugging Face's ``datasets`` keeps them.

Legend: N samples, B of a batch, S x S pixels.
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

from datamodules.augmentation.pixels import Augment, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.sampling.dataset import Samples, Source
from datamodules.sampling.splits import split_ranked
from datamodules.sources.columns import Strings, encode, encode_labels, is_text, refuse_missing
from datamodules.sources.images import StoredImages, check_image_size
from datamodules.sources.preflight import check_given
from datamodules.sources.texts import Texts
from datamodules.sources.vectors import Vectors
from metric_module.errors import UserError

AUGMENT = Augment()
OWN_NAMES = {"train": ("train",), "val": ("validation", "val", "valid"), "test": ("test",)}


@dataclass(eq=False, repr=False)
class HuggingFaceDataModule(PKDataModule):
    """A data set that ``save_to_disk`` wrote, a folder of files that ``load_dataset`` takes, or one by its name.

    The input is a column of images (read as :class:`datamodules.ImageFolderDataModule` does), of strings (a list of B
    of them), or of equally long lists of numbers (float32 ``(B, D)``). No code of a data set is run.

    Splits: its own train, validation and test are taken as they are if no class of one is in another. If classes are
    shared, or a split is missing, all samples together are split anew by class, as :func:`datamodules.split_classes`
    does, and a warning says so; ``class_disjoint=false`` takes its own splits in any case.

    Args:
        path: The folder, or the name.
        input: The column of inputs.
        label: The column of classes: ``ClassLabel``, integers or strings. Splits whose ``ClassLabel`` have other names
            are put together by these, not by their numbers.
        class_disjoint: Whether no class of one split may be in another.
        group: Column of cameras or the like, integers or strings.
        name: Which configuration, if there are several.
        image_size: S.

    Other arguments are those of :class:`datamodules.PKDataModule`. Images are augmented by default, and nothing else.

    Raises:
        UserError: The package is missing; the data set, a column or a split is missing, or of another kind, or the
            preflight finds something.
    """

    _: KW_ONLY
    path: str
    input: str
    label: str = "label"
    class_disjoint: bool = True
    group: str | None = None
    name: str | None = None
    image_size: int = 64
    eval_batch_size: int = 256
    augment: AugmentFunction | None = AUGMENT

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_given("datamodule.path", self.path)
        check_image_size(self.image_size)

    @override
    def load(self) -> Samples:
        """Open the data set, which stays on disk, and split it."""
        parts = read_parts(self.path, self.name, [self.input, self.label, *([self.group] if self.group else [])])
        labels, names = self._labels(parts)
        splits = self._splits({name: len(part) for name, part in parts.items()}, labels, len(names))
        groups = None
        if self.group is not None:
            where = f"{self.path}: column {self.group!r}"
            groups = encode(_column(parts, self.group, where), where).codes
        return Samples(self._source(parts), labels, splits, names, groups=groups)

    def _labels(self, parts: Mapping[str, Any]) -> tuple[Tensor, Sequence[str]]:
        where = f"{self.path}: column {self.label!r}"
        labels, values = encode_labels(_column(parts, self.label, where), where)
        feature = next(iter(parts.values())).features[self.label]
        if not hasattr(feature, "int2str") or is_text(values.type):
            return labels, Strings(values)
        if values[0].as_py() < 0:
            rows = int((labels == 0).sum())
            raise UserError(f"{where}: {rows} samples have no class ({values[0].as_py()})")
        return labels, [feature.int2str(value) for value in values.to_pylist()]

    def _splits(self, sizes: Mapping[str, int], labels: Tensor, classes: int) -> dict[str, Tensor]:
        """The data set's own, or new ones by class."""
        own = own_splits(sizes)
        reason = f"has no {', '.join(name for name in OWN_NAMES if name not in own)}" if len(own) < 3 else ""
        if not reason:
            parts = torch.zeros(3, classes, dtype=torch.bool)
            for number, ids in enumerate(own.values()):
                parts[number, labels[ids]] = True
            shared = int((parts.sum(dim=0) > 1).sum())
            reason = f"shares {shared} of {classes} classes among its splits" if shared else ""
        if not reason:
            return own
        if not self.class_disjoint:
            if len(own) < 3:
                raise UserError(f"datamodule.class_disjoint=false: {self.path} {reason}, only {', '.join(sizes)}")
            return own
        if len(sizes) > 1:
            rank_zero_warn(f"data: {self.path} {reason}; all samples are split anew by class, see class_disjoint")
        return split_ranked(labels, classes, seed=self.split_seed, fractions=self.fractions)

    def _source(self, parts: Mapping[str, Any]) -> Source:
        where = f"{self.path}: column {self.input!r}"
        column = _column(parts, self.input, where)
        refuse_missing(column, where)
        feature = next(iter(parts.values())).features[self.input]
        if type(feature).__name__ == "Image":
            return StoredImages(column, self.image_size)
        if self.augment is AUGMENT:
            self.augment = None
        return Texts(Strings(column)) if is_text(column.type) else Vectors(column, where)


def read_parts(path: str, name: str | None, columns: Sequence[str]) -> dict[str, Any]:
    """The splits of a data set, by their own names, with some columns.

    Args:
        path: Folder or name.
        name: Which configuration.
        columns: The columns.

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
    except Exception as error:  # datasets and what it reads with raise many kinds
        if saved and isinstance(error, IndexError):  # what load_from_disk makes of a split of no files
            raise UserError(f"datamodule.path: {path} has no rows, or a split without any") from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"datamodule.path: cannot read {path} ({reason})") from None
    parts = dict(found) if isinstance(found, dict) else {"train": found}
    for part, content in parts.items():
        missing = [column for column in columns if column not in content.column_names]
        if missing:
            known = ", ".join(content.column_names)
            raise UserError(f"{path}: {part} has no column {', '.join(map(repr, missing))}, only {known}")
    chosen = {part: content.select_columns(list(dict.fromkeys(columns))) for part, content in parts.items()}
    return {part: content.flatten_indices() if content._indices else content for part, content in chosen.items()}


def own_splits(sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Ids of train, val and test, as far as there are such, when the splits are put behind each other.

    Args:
        sizes: Samples of each split.

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


def _column(parts: Mapping[str, Any], name: str, where: str) -> pa.ChunkedArray:
    """A column of all splits, one behind the other; codes of classes become names where the splits number them apart.

    Raises:
        UserError: The splits hold values of different types.
    """
    numbered = {tuple(getattr(part.features[name], "names", None) or ()) for part in parts.values()}
    columns = {part: _chunks(content, name, by_name=len(numbered) > 1) for part, content in parts.items()}
    kinds = {part: chunks[0].type for part, chunks in columns.items() if chunks}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{kind} in {part}" for part, kind in kinds.items())
        raise UserError(f"{where}: expected one type in all splits, got {told}")
    return pa.chunked_array([chunk for chunks in columns.values() for chunk in chunks])


def _chunks(part: Any, name: str, by_name: bool) -> list[pa.Array]:
    """A column of one split, of a ``ClassLabel`` the names if they are asked for; -1 has none."""
    chunks = part.data.column(name).chunks
    if by_name and hasattr(part.features[name], "int2str"):
        names = pa.array(part.features[name].names, pa.string())
        return [names.take(pc.if_else(pc.less(chunk, 0), None, chunk)) for chunk in chunks]
    return [chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk for chunk in chunks]
