"""Characters as drawn by the fonts of this machine, split by script: Omniglot's protocol, on data that a system has.

Legend: N images of S x S pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from datamodules.augmentation.class_symmetries import check_share, turn_batch
from datamodules.augmentation.pixels import Augment, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.glyphs.fonts import Face, Pixels, list_faces, render, script_of, twins
from datamodules.sampling.dataset import Samples
from datamodules.sampling.splits import check_no_fractions, fold_samples
from datamodules.sources.grey import GreyImages, check_grey
from datamodules.sources.preflight import check_given
from metric_module.batch import Batch
from metric_module.errors import UserError

TRAIN = ("Latn", "Grek", "Cyrl", "Armn", "Arab", "Hira", "Kana", "Mlym", "Telu")
VAL = ("Geor", "Khmr")
TEST = ("Deva", "Hebr", "Thai")
AUGMENT = Augment(flip=0.0, hue=0.0)


@dataclass(eq=False, repr=False)
class GlyphDataModule(PKDataModule):
    """Each letter is a class, each sample the drawing of another family of fonts; whole scripts are held out.

    One face of a family is used, the plainest. Letters that look exactly like an earlier one in half of the fonts
    (Latin A, Greek Alpha) are left out, and so are equal images of one letter. No two of the default scripts of val, or
    of test, share letters, nor do they with another split. Inputs are float32 ``(B, C, S, S)`` in [-1, 1], black on
    white, in memory, so ``num_workers=0`` serves well. Needs ``pip install 'lightning-triplets[fonts]'``.

    Args:
        fonts: Folder of the fonts, at any depth.
        train: Scripts to train on, ISO 15924 codes.
        val: Scripts to choose by.
        test: Scripts to report on.
        min_fonts: Letters that fewer families have are left out.
        max_fonts: Most families of a letter, drawn by ``split_seed``.
        image_size: S.
        channels: C: 1, or 3 copies of it.
        class_turns: While training, probability that a class of a batch is turned or mirrored, all its images alike,
            into a class of its own; see :func:`datamodules.augmentation.class_symmetries.turn_classes`.

    Other arguments are those of :class:`datamodules.PKDataModule`. ``fold`` holds out scripts, not letters.

    Raises:
        UserError: An argument is out of range, or a script is in two splits; later, if a script has no letters of so
            many families.
    """

    _: KW_ONLY
    fonts: str = "/usr/share/fonts"
    train: Sequence[str] = TRAIN
    val: Sequence[str] = VAL
    test: Sequence[str] = TEST
    min_fonts: int = 6
    max_fonts: int = 20
    image_size: int = 32
    channels: int = 1
    class_turns: float = 0.0
    augment: AugmentFunction | None = AUGMENT

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_given("datamodule.fonts", self.fonts)
        check_grey(self.image_size, self.channels)
        check_share(self.class_turns)
        check_no_fractions(self.fractions, "the scripts of train, val and test are the split")
        if not 2 <= self.min_fonts <= self.max_fonts:
            raise UserError(
                f"datamodule.min_fonts: expected 2 <= min_fonts <= max_fonts, got {self.min_fonts} and {self.max_fonts}"
            )
        twice = sorted({script for script in self.scripts if self.scripts.count(script) > 1})
        if twice:
            raise UserError(f"datamodule: scripts in more than one place: {', '.join(twice)}")

    @property
    def scripts(self) -> list[str]:
        """All scripts, those of train first."""
        return [*self.train, *self.val, *self.test]

    @override
    def augment_batch(self, batch: Batch, epoch: int) -> Batch:
        """Turn whole classes, a function of (seed, epoch, class), then augment each image."""
        return super().augment_batch(turn_batch(batch, self.class_turns, seed=self.seed, epoch=epoch), epoch)

    @override
    def load(self) -> Samples:
        """Find the fonts and render the letters."""
        faces = list_faces(Path(self.fonts), self.scripts)
        shuffled = [faces[place] for place in np.random.default_rng(self.split_seed).permutation(len(faces))]
        letters = render_letters(shuffled, self.image_size, self.min_fonts, self.max_fonts)
        names = sorted(letters)
        of_class = [script_of(name) for name in names]
        missing = [script for script in self.scripts if script not in of_class]
        if missing:
            raise UserError(
                f"{self.fonts}: no letters of at least {self.min_fonts} families in {', '.join(missing)}; install "
                "fonts (docs/recipes/glyphs.md), or change the scripts or datamodule.min_fonts"
            )
        images = torch.from_numpy(np.concatenate([np.stack(letters[name]) for name in names]))  # (N, S, S)
        labels = torch.arange(len(names)).repeat_interleave(torch.tensor([len(letters[name]) for name in names]))
        return Samples(
            fetch=GreyImages(images, self.image_size, self.channels),
            labels=labels,
            splits={split: self._of(labels, of_class, getattr(self, split)) for split in ("train", "val", "test")},
            class_names=[f"{script} {name}" for script, name in zip(of_class, names, strict=True)],
        )

    def _of(self, labels: Tensor, of_class: Sequence[str], scripts: Sequence[str]) -> Tensor:
        """Ids of the samples of some scripts, ascending."""
        inside = torch.tensor([script in scripts for script in of_class])  # (classes,)
        return inside[labels].nonzero()[:, 0]

    @override
    def _fold(self, samples: Samples, fold: int) -> dict[str, Tensor]:
        of_class = torch.tensor([self.scripts.index(name.split()[0]) for name in samples.class_names])
        seed, folds = self.split_seed, self.folds
        return fold_samples(samples.splits, of_class[samples.labels], self.scripts, fold=fold, folds=folds, seed=seed)


def render_letters(faces: Sequence[Face], size: int, least: int, most: int) -> Mapping[str, list[Pixels]]:
    """Different images of every letter that enough faces have, without the twins of other letters.

    Args:
        faces: The faces, in the order in which a letter takes its images.
        size: S.
        least: Images of a letter, or it is left out.
        most: Images that are kept.

    Returns:
        Uint8 ``(S, S)`` images by letter.
    """
    order = sorted({char for face in faces for char in face.letters})
    fonts = [render(face.path, sorted(face.letters), size) for face in faces]
    left_out = twins(fonts, order)
    found: dict[str, list[Pixels]] = {}
    for char in order:
        if char not in left_out:
            different = {images[char].tobytes(): images[char] for images in fonts if char in images}
            if len(different) >= least:
                found[char] = list(different.values())[:most]
    return found
