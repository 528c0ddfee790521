"""Images and their captions, from a table.

Legend: n captions, N images, S x S pixels.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import torch
from typing_extensions import override

from datamodules.relations.base import PairDataModule
from datamodules.relations.data import PairData, Side
from datamodules.sampling.splits import split_samples
from datamodules.sources.columns import Strings, encode, refuse_missing
from datamodules.sources.images import ImageFiles, check_image_size
from datamodules.sources.preflight import Paths, check_given
from datamodules.sources.tables import read_table
from datamodules.sources.texts import Texts
from metric_module.evaluation import Sought
from metric_module.relations import Links


@dataclass(eq=False, repr=False)
class CaptionsDataModule(PairDataModule):
    """Captions, and the image that each describes: queries are captions, references are images.

    The images are split at random, and their captions go with them. Inputs are ``{"text": list of B strings}`` and
    ``{"image": float32 (B, 3, S, S) in [-1, 1]}``.

    Args:
        path: A CSV, TSV or Parquet file with a row for each caption; images lie relative to its folder.
        image: Column of the images' paths; several captions of an image name it alike.
        text: Column of the captions.
        image_size: S.
        cache_dir: Where the preflight remembers what it read, see :class:`datamodules.ImageFolderDataModule`.

    Other arguments are those of :class:`datamodules.PairDataModule`.

    Raises:
        UserError: There is no such file, it lacks a column, or the preflight finds images that cannot be read.
    """

    _: KW_ONLY
    path: str
    image: str = "image"
    text: str = "caption"
    image_size: int = 64
    cache_dir: str | None = None

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_given("datamodule.path", self.path)
        check_image_size(self.image_size)

    @override
    def load(self) -> PairData:
        """Read the table and split the images."""
        path = Path(self.path)
        found = read_table(path, [self.image], [self.text], setting="datamodule.path")
        owner, names = encode(found[self.image], f"{path}: column {self.image!r}")  # (n,), N names
        refuse_missing(found[self.text], f"{path}: column {self.text!r}")
        captions, images = len(owner), len(names)
        named = [str(name) for name in names.to_pylist()]
        splits = split_samples(torch.arange(images), named, seed=self.split_seed, fractions=self.fractions)
        links = Links.of(torch.arange(captions), owner, captions)
        of = {name: torch.isin(owner, part).nonzero()[:, 0] for name, part in splits.items()}
        sought = {}
        for name in ("val", "test"):
            place = torch.searchsorted(splits[name], owner[of[name]])
            positives = Links.of(torch.arange(len(place)), place, len(place))
            sought[name] = Sought(of[name], splits[name] + captions, positives)
        files = ImageFiles(Paths(str(path.parent / name) for name in named), self.image_size, self.cache_dir)
        return PairData(
            query=Side(Texts(Strings(found[self.text])), captions, "text"),
            reference=Side(files, images, "image"),
            positives=links,
            anchors=of["train"],
            candidates=splits["train"],
            sought=sought,
        )
