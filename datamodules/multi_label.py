"""Images that have several labels each, from a table.

Legend: N images, L labels, S x S pixels.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from typing_extensions import override

from datamodules.files import Paths
from datamodules.images import ImageFiles, check_image_size
from datamodules.pair_base import PairDataModule
from datamodules.pair_data import PairData, Side
from datamodules.splits import split_samples
from datamodules.tables import encode, read_table, refuse_missing
from metric_module.errors import UserError
from metric_module.evaluation import Sought
from metric_module.links import Links, SharedLabels


@dataclass(eq=False, repr=False)
class MultiLabelDataModule(PairDataModule):
    """Images with several labels each: two images belong together if they have a label in common.

    Queries and references are the same images, and an image is neither its own positive nor its own negative. The
    images are split at random, so that labels are seen in training: no split of the images keeps all their labels
    apart. Inputs are float32 ``(B, 3, S, S)`` in [-1, 1].

    Args:
        path: A CSV, TSV or Parquet file with a row for each image; images lie relative to its folder.
        image: Column of the images' paths.
        labels: Column of their labels.
        separator: Between the labels of an image.
        image_size: S.
        cache_dir: Where the preflight remembers what it read, see :class:`datamodules.ImageFolderDataModule`.

    Other arguments are those of :class:`datamodules.PairDataModule`.

    Raises:
        UserError: There is no such file, it lacks a column or names an image twice, or the preflight finds images that
            cannot be read.
    """

    _: KW_ONLY
    path: str
    image: str = "image"
    labels: str = "labels"
    separator: str = "|"
    image_size: int = 64
    cache_dir: str | None = None

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self.image_size)

    @override
    def load(self) -> PairData:
        """Read the table and split the images."""
        path = Path(self.path)
        found = read_table(path, [], [self.image, self.labels], setting="datamodule.path")
        for column in (self.image, self.labels):
            refuse_missing(found[column], f"{path}: column {column!r}")
        names = [str(name) for name in found[self.image].to_pylist()]
        if len(set(names)) < len(names):
            ordered = sorted(names)
            twice = next(name for name, after in pairwise(ordered) if name == after)
            raise UserError(f"{path}: expected each image once, got {twice} again")
        lists = pc.split_pattern(found[self.labels].combine_chunks(), self.separator)  # N lists of labels
        row = torch.from_numpy(pc.list_parent_indices(lists).to_numpy().astype("int64"))  # (n,)
        labels = Links.of(row, encode(pa.chunked_array([pc.list_flatten(lists)]), "labels").codes, len(names))
        splits = split_samples(torch.arange(len(names)), names, seed=self.split_seed, fractions=self.fractions)
        positives = SharedLabels(labels, among=splits["train"])
        train = splits["train"]
        files = ImageFiles(Paths(str(path.parent / name) for name in names), self.image_size, self.cache_dir)
        return PairData(
            query=Side(files, len(names)),
            reference=None,
            positives=positives,
            anchors=train[positives.lists(train).sizes > 0],
            candidates=train,
            sought={split: among_themselves(labels, splits[split]) for split in ("val", "test")},
        )


def among_themselves(labels: Links, ids: torch.Tensor) -> Sought:
    """Every one of some samples looks for the others that share a label with it.

    Args:
        labels: Labels of every sample.
        ids: Which samples, ascending, int64.
    """
    itself = Links(torch.arange(len(ids) + 1), torch.arange(len(ids)))
    return Sought(ids, ids, SharedLabels(labels.lists(ids)), itself)
