"""A published data set from the user's copy, with its official test.

Legend: N = images, B = images in a batch, S = side in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import override

from datamodules.augmentation.pixels import IMAGE_AUGMENT, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.checks import check_folder
from datamodules.published import Listing, Reader
from datamodules.published.listing import check_complete
from datamodules.sampling.dataset import Samples, copy_numbers
from datamodules.sampling.grouping import codes
from datamodules.sampling.splits import check_no_fractions, hold_out
from datamodules.sources.images import ImageFiles
from datamodules.sources.paths import Paths


@dataclass(eq=False, repr=False)
class PublishedDataModule(PKDataModule):
    """CUB-200-2011, Cars196, SOP, In-shop, Market-1501, LFW or Omniglot in its published layout.

    The test split is the whole official test. Validation holds out classes of the official training part, by
    ``split_seed``, so that no class is in two splits; for Omniglot it holds out whole alphabets. If the official test
    separates queries from a gallery, validation does too: its queries are the first image of each person and camera,
    or every other image of a class if there are no cameras. A full copy must have the official numbers of images and
    classes. Inputs are float32 ``(B, 3, S, S)`` in [-1, 1]: the shorter side is scaled to S, and the central square is
    used.

    Args:
        root: Folder of the copy.
        read: Reader of the data set, from :mod:`datamodules.published`.
        image_size: S.
        val_fraction: Share of the official training classes that is held out for validation.
        official: Whether the numbers of images and classes must be the official ones; false accepts a partial copy.
        cache_dir: Folder in which the preflight remembers files it has read; None: ``lightning-triplets`` in the user's
            cache folder.

    Other arguments are those of :class:`datamodules.PKDataModule`.

    Raises:
        UserError: An argument is out of range; in ``load``: the copy is incomplete; in ``prepare_data``: files cannot
            be used.
    """

    _: KW_ONLY
    root: str
    read: Reader
    image_size: int = 224
    val_fraction: float = 0.2
    official: bool = True
    cache_dir: str | None = None
    eval_batch_size: int = 128
    num_workers: int = 4
    augment: AugmentFunction | None = IMAGE_AUGMENT
    duplicates: str = "keep"  # some data sets have the same photo in training and test; published figures include it

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_no_fractions(self.fractions, "test is the official one, and datamodule.val_fraction is the share of val")
        self._units: Sequence[str] = ()

    @override
    def load(self) -> Samples:
        """Read the lists, compare them with the folder, and split the classes; no image is read yet.

        Raises:
            UserError: The copy is incomplete, or one of its lists is damaged.
        """
        root = check_folder(Path(self.root), "datamodule.root")
        listing = self.read(root)
        check_complete(self.read, root, listing, self.official)
        self._units = listing.units
        paths = Paths(str(root / path) for path in listing.paths)
        return Samples(
            fetch=ImageFiles(paths, self.image_size, self.cache_dir, listing.boxes),
            labels=listing.labels,
            splits=split_official(listing, self.val_fraction, self.split_seed),
            class_names=listing.class_names,
            groups=listing.groups,
            queries=None if listing.queries is None else with_queries(listing, listing.queries),
            listed=listing.listed,
        )

    @override
    def fold_units(self, samples: Samples) -> tuple[Tensor, Sequence[str]]:
        """Hold out whole units of classes, such as alphabets."""
        units, names = codes([*self._units] or [*samples.class_names])  # (classes,)
        return units[samples.labels], names


def split_official(listing: Listing, val_fraction: float, seed: int) -> dict[str, Tensor]:
    """Split a data set: test as published, val a share of the other classes (or units of classes), train the rest.

    Args:
        listing: The data set.
        val_fraction: Share of val.
        seed: Seed of the draw.

    Returns:
        Ids of the samples in each split, int64.

    Raises:
        UserError: The share leaves val or train without a class.
    """
    units = listing.units or listing.class_names
    rest = sorted({units[label] for label in set(listing.labels[~listing.test].tolist())})
    chosen = hold_out(rest, val_fraction, seed=seed)
    held = torch.tensor([unit in chosen for unit in units])[listing.labels] & ~listing.test  # (N,)
    masks = {"train": ~held & ~listing.test, "val": held, "test": listing.test}
    return {split: part.nonzero()[:, 0] for split, part in masks.items()}


def with_queries(listing: Listing, official: Tensor) -> Tensor:
    """Choose the queries, bool ``(N,)``: in the test as published, elsewhere some images of each class.

    Args:
        listing: The data set.
        official: Queries of the test, bool ``(N,)``.
    """
    if listing.groups is None:
        chosen = copy_numbers(listing.labels) % 2 == 0  # (N,)
    else:
        chosen = copy_numbers(listing.labels * (int(listing.groups.max()) + 1) + listing.groups) == 0
    return torch.where(listing.test, official, chosen)
