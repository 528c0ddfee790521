"""A published data set from the user's own copy, with its official test.

Legend: N images, B of a batch, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import override

from datamodules.augmentation.class_symmetries import check_share, turn_batch
from datamodules.augmentation.pixels import Augment, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.published import Listing, Reader
from datamodules.published.listing import check_complete
from datamodules.sampling.dataset import Samples, copy_numbers
from datamodules.sampling.grouping import codes
from datamodules.sampling.splits import check_no_fractions, fold_samples, hold_out
from datamodules.sources.images import ImageFiles, check_image_size
from datamodules.sources.preflight import Paths, check_given
from metric_module.batch import Batch
from metric_module.errors import UserError

AUGMENT = Augment()


@dataclass(eq=False, repr=False)
class PublishedDataModule(PKDataModule):
    """CUB-200-2011, Cars196, SOP, In-shop, Market-1501, LFW or Omniglot, as a reader finds it in its published layout.

    Test is the official test, whole. Validation takes classes out of the official training part, by ``split_seed``, so
    that no class is in two splits; Omniglot's are taken by whole alphabets. Where the official test has queries and a
    gallery, validation has them as well: the first image of each person and camera, or else every other image of a
    class, is a query. A full copy must have the official numbers of images and classes. Inputs are float32 ``(B, 3, S,
    S)`` in [-1, 1]: the shorter side is scaled to S, the middle cut out.

    Args:
        root: The folder of the copy.
        read: Which data set: a reader of :mod:`datamodules.published`.
        image_size: S.
        val_fraction: Share of the official training classes that is held out for validation.
        official: Whether the numbers of images and classes must be the official ones; false takes a part of a copy.
        class_turns: While training, probability that a class of a batch is turned or mirrored, all its images alike,
            into a class of its own; see :func:`datamodules.augmentation.class_symmetries.turn_classes`.
        cache_dir: Where the preflight remembers what it read; None: ``lightning-triplets`` in the user's cache folder.

    Other arguments are those of :class:`datamodules.PKDataModule`.

    Raises:
        UserError: An argument is out of range; later, if the copy is not complete, or the preflight finds something.
    """

    _: KW_ONLY
    root: str
    read: Reader
    image_size: int = 224
    val_fraction: float = 0.2
    official: bool = True
    class_turns: float = 0.0
    cache_dir: str | None = None
    eval_batch_size: int = 128
    augment: AugmentFunction | None = AUGMENT

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_given("datamodule.root", self.root)
        check_image_size(self.image_size)
        check_share(self.class_turns)
        self._units: Sequence[str] = ()
        check_no_fractions(self.fractions, "test is the official one, and datamodule.val_fraction says how much is val")

    @override
    def augment_batch(self, batch: Batch, epoch: int) -> Batch:
        """Turn whole classes, a function of (seed, epoch, class), then augment each image."""
        return super().augment_batch(turn_batch(batch, self.class_turns, seed=self.seed, epoch=epoch), epoch)

    @override
    def load(self) -> Samples:
        """Read the lists, compare them with the folder, and split the classes; no image is read yet."""
        root = Path(self.root)
        if not root.is_dir():
            raise UserError(f"datamodule.root: no such folder: {root}")
        listing = self.read(root)
        check_complete(self.read, root, listing, self.official)
        self._units = listing.units
        paths = Paths(str(root / path) for path in listing.paths)
        # Some sets hold the same photograph twice, in training and in test: that is how their figures are compared.
        images = ImageFiles(paths, self.image_size, self.cache_dir, listing.boxes, same_in_two_splits=True)
        return Samples(
            fetch=images,
            labels=listing.labels,
            splits=split_official(listing, self.val_fraction, self.split_seed),
            class_names=listing.class_names,
            groups=listing.groups,
            queries=None if listing.queries is None else with_queries(listing, listing.queries),
            listed=listing.listed,
        )

    @override
    def _fold(self, samples: Samples, fold: int) -> dict[str, Tensor]:
        units, names = codes([*self._units] or [*samples.class_names])  # (classes,)
        seed, folds = self.split_seed, self.folds
        return fold_samples(samples.splits, units[samples.labels], names, fold=fold, folds=folds, seed=seed)


def split_official(listing: Listing, val_fraction: float, seed: int) -> dict[str, Tensor]:
    """Ids of each split: test as published, val a share of the other classes (or units of classes), train the rest.

    Args:
        listing: The data set.
        val_fraction: The share.
        seed: Names the draw.

    Raises:
        UserError: The share leaves val or train without a class.
    """
    units = listing.units or listing.class_names
    rest = sorted({units[label] for label in set(listing.labels[~listing.test].tolist())})
    chosen = hold_out(rest, val_fraction, seed=seed)
    held = torch.tensor([unit in chosen for unit in units])[listing.labels] & ~listing.test  # (N,)
    parts = {"train": ~held & ~listing.test, "val": held, "test": listing.test}
    return {split: part.nonzero()[:, 0] for split, part in parts.items()}


def with_queries(listing: Listing, official: Tensor) -> Tensor:
    """Which images are queries, bool ``(N,)``: in the test those that are published, elsewhere some of each class.

    Args:
        listing: The data set.
        official: Queries of the test, bool ``(N,)``.
    """
    if listing.groups is None:
        chosen = copy_numbers(listing.labels) % 2 == 0  # (N,)
    else:
        chosen = copy_numbers(listing.labels * (int(listing.groups.max()) + 1) + listing.groups) == 0
    return torch.where(listing.test, official, chosen)
