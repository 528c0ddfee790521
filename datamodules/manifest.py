"""A table of one's own: a row for each sample.

Legend: N rows, B of a batch, S x S pixels, D numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from typing_extensions import override

from datamodules.augmentation.pixels import Augment, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.sampling.dataset import Samples, Source
from datamodules.sampling.splits import SPLITS, split_ranked
from datamodules.sources.columns import Strings, encode, encode_labels, is_text, refuse_missing, rows_in_words
from datamodules.sources.images import ImageFiles, check_image_size
from datamodules.sources.preflight import check_given
from datamodules.sources.tables import SEPARATORS, read_table
from datamodules.sources.texts import Texts
from datamodules.sources.vectors import Vectors
from metric_module.errors import UserError

AUGMENT = Augment()


@dataclass(eq=False, repr=False)
class ManifestDataModule(PKDataModule):
    """A CSV, TSV or Parquet file with a row for each sample: its input, its class, and what else is known.

    The input is in one of three kinds of column. ``image``: files, read as
    :class:`datamodules.ImageFolderDataModule` does. ``text``: strings; inputs are lists of B of them. ``array``: lists
    of equally many numbers (Parquet alone); inputs are float32 ``(B, D)``. Only the columns that are named are read.

    Classes are the distinct values of ``label``: strings or integers, any of them; of a CSV, strings always, so that
    007 and 7 are two. Without a column that says so, classes are split as :func:`datamodules.split_classes` does
    (integers in their numerical order). The id of a sample is its row, from 0.

    Args:
        table: The file.
        image: Column of paths, relative to ``root``.
        text: Column of texts.
        array: Column of lists of numbers.
        label: Column of classes.
        split: Column of ``train``, ``val`` and ``test``.
        role: Column of ``query`` and ``gallery``, for evaluation; of training rows it says nothing.
        group: Column of cameras or the like, strings or integers: retrieval is then also measured across groups.
        root: Folder of the images; None: that of the table.
        image_size: S.
        cache_dir: Where the preflight of images remembers what it read; None: ``lightning-triplets`` in the user's
            cache folder.

    Other arguments are those of :class:`datamodules.PKDataModule`. Images are augmented by default, and nothing else.

    Raises:
        UserError: Not one of ``image``, ``text`` and ``array`` is given; later, if the table, a column or a value is
            missing or of another kind, or the preflight finds something.
    """

    _: KW_ONLY
    table: str
    image: str | None = None
    text: str | None = None
    array: str | None = None
    label: str = "label"
    split: str | None = None
    role: str | None = None
    group: str | None = None
    root: str | None = None
    image_size: int = 64
    cache_dir: str | None = None
    eval_batch_size: int = 256
    augment: AugmentFunction | None = AUGMENT

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_given("datamodule.table", self.table)
        check_given("datamodule.root", self.root)
        check_image_size(self.image_size)
        given = [name for name in (self.image, self.text, self.array) if name is not None]
        if len(given) != 1:
            raise UserError(f"datamodule: expected the column of one of image, text and array, got {len(given)}")
        if self.array is not None and Path(self.table).suffix.lower() in SEPARATORS:
            raise UserError(f"datamodule.array: expected a Parquet file, for lists of numbers, got {self.table}")
        if self.image is None and self.augment is AUGMENT:
            self.augment = None

    @override
    def load(self) -> Samples:
        """Read the columns; files of images are not opened yet."""
        samples = self._load()
        pa.default_memory_pool().release_unused()  # a third of what reading took, which workers would count as theirs
        return samples

    def _load(self) -> Samples:
        words = [name for name in (self.label, self.split, self.role, self.group) if name is not None]
        column = self.image or self.text or self.array or ""
        table = read_table(self.table, words, [column])
        source = self._source(table[column], self._where(column))
        labels, classes = encode_labels(table[self.label], self._where(self.label))
        if self.split is None:
            splits = split_ranked(labels, len(classes), seed=self.split_seed, fractions=self.fractions)
        else:
            splits = read_splits(table[self.split], self._where(self.split))
        groups = None if self.group is None else encode(table[self.group], self._where(self.group)).codes
        queries = None if self.role is None else read_roles(table[self.role], splits, self._where(self.role))
        return Samples(source, labels, splits, Strings(classes), groups=groups, queries=queries)

    def _where(self, column: str) -> str:
        """How messages name a column."""
        return f"{self.table}: column {column!r}"

    def _source(self, column: pa.ChunkedArray, where: str) -> Source:
        refuse_missing(column, where)
        if self.array is not None:
            return Vectors(column, where)
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if not is_text(kind):
            raise UserError(f"{where}: expected strings, got {kind}")
        if self.text is not None:
            return Texts(Strings(column))
        folder = str(Path(self.table).parent) if self.root is None else self.root
        if not Path(folder).is_dir():
            raise UserError(f"datamodule.root: no such folder: {folder}")
        return ImageFiles(Strings(column, folder), self.image_size, self.cache_dir)


def read_splits(column: pa.ChunkedArray, where: str) -> dict[str, Tensor]:
    """Ids of the samples of each split, int64, ascending.

    Args:
        column: ``train``, ``val`` or ``test`` for each sample.
        where: How to name the column in a message.

    Raises:
        UserError: There are other values, or a split has no rows.
    """
    codes, values = encode(column, where)
    names = [str(value) for value in values.to_pylist()]
    _refuse_others(names, SPLITS, where)
    missing = [name for name in SPLITS if name not in names]
    if missing:
        raise UserError(f"{where}: no row of {', '.join(missing)}; without the column, the classes are split")
    return {name: (codes == names.index(name)).nonzero()[:, 0] for name in SPLITS}


def read_roles(column: pa.ChunkedArray, splits: Mapping[str, Tensor], where: str) -> Tensor:
    """Whether each sample is a query, bool ``(N,)``.

    Args:
        column: ``query`` or ``gallery`` for each sample that is no training sample.
        splits: Ids of the samples of each split.
        where: How to name the column in a message.

    Raises:
        UserError: There are other values, or val or test have none, or not both.
    """
    codes, values = encode(pc.fill_null(column.cast(pa.string()), ""), where)
    names = [str(value) for value in values.to_pylist()]
    _refuse_others([name for name in names if name], ("query", "gallery"), where)
    code = {name: names.index(name) if name in names else -1 for name in ("", "query", "gallery")}
    for split in ("val", "test"):
        found = codes[splits[split]]  # (n,)
        empty = splits[split][found == code[""]]
        if len(empty):
            raise UserError(f"{where}: {split} needs query or gallery, nothing in {rows_in_words(empty)}")
        lacking = [role for role in ("query", "gallery") if not torch.any(found == code[role])]
        if lacking:
            raise UserError(f"{where}: {split} has no row of {', '.join(lacking)}")
    return codes == code["query"]


def _refuse_others(names: list[str], allowed: tuple[str, ...], where: str) -> None:
    others = [name for name in names if name not in allowed]
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        shown = ", ".join(map(repr, others[:5]))
        raise UserError(f"{where}: expected {', '.join(allowed)}, got {shown}{more}")
