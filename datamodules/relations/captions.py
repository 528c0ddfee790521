"""Images and their captions, from a table.

Legend: n = captions, N = images, B = samples in a batch, S = side in pixels.
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
from datamodules.sources.images import ImageFiles
from datamodules.sources.paths import Paths
from datamodules.sources.tables import read_table
from datamodules.sources.texts import Texts
from metric_module.evaluation import Sought
from metric_module.relations import Links


@dataclass(eq=False, repr=False)
class CaptionsDataModule(PairDataModule):
    """Captions as queries, and the images that they describe as references.

    The images are split at random, together with their captions. Inputs are ``{"text": list of B strings}`` and
    ``{"image": float32 (B, 3, S, S) in [-1, 1]}``.

    Args:
        path: CSV, TSV or Parquet file with a row for each caption; image paths are relative to its folder.
        image: Column of image paths; captions of the same image have the same path.
        text: Column of captions.
        image_size: S.
        cache_dir: Folder in which the preflight remembers files it has read; None: ``lightning-triplets`` in the user's
            cache folder.

    Other arguments are those of :class:`datamodules.PairDataModule`.

    Raises:
        UserError: An argument is out of range; in ``load``: the file or a column is missing; in ``prepare_data``:
            images cannot be read.
    """

    _: KW_ONLY
    path: str
    image: str = "image"
    text: str = "caption"
    image_size: int = 64
    cache_dir: str | None = None
    num_workers: int = 2

    @override
    def load(self) -> PairData:
        """Read the table and split the images.

        Raises:
            UserError: The file or a column is missing, or a value is.
        """
        path = Path(self.path)
        table = read_table(path, [self.image], [self.text], setting="datamodule.path")
        owner, values = encode(table[self.image], f"{path}: column {self.image!r}")  # (n,), N values
        refuse_missing(table[self.text], f"{path}: column {self.text!r}")
        names = [str(name) for name in values.to_pylist()]
        captions, images = len(owner), len(names)
        splits = split_samples(torch.arange(images), names, seed=self.split_seed, fractions=self.fractions)
        rows = {split: torch.isin(owner, part).nonzero()[:, 0] for split, part in splits.items()}  # captions
        sought = {}
        for split in ("val", "test"):
            place = torch.searchsorted(splits[split], owner[rows[split]])
            positives = Links.of(torch.arange(len(place)), place, len(place))
            sought[split] = Sought(rows[split], splits[split] + captions, positives)
        files = ImageFiles(Paths(str(path.parent / name) for name in names), self.image_size, self.cache_dir)
        return PairData(
            query=Side(Texts(Strings(table[self.text])), captions, "text"),
            reference=Side(files, images, "image"),
            positives=Links.of(torch.arange(captions), owner, captions),
            anchors=rows["train"],
            candidates=splits["train"],
            sought=sought,
        )
