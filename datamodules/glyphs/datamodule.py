"""Letters drawn by the fonts of this machine, split by script as Omniglot is split by alphabet.

Legend: N = images, S = side in pixels, C = channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from datamodules.augmentation.pixels import Augment, AugmentFunction
from datamodules.base import PKDataModule
from datamodules.checks import check_choice
from datamodules.glyphs.fonts import Face, Pixels, find_lookalikes, list_faces, render, script_of
from datamodules.messages import listed, reason_of
from datamodules.sampling.dataset import Samples
from datamodules.sampling.splits import SPLITS, check_no_fractions
from datamodules.sources.images_in_memory import ImagesInMemory
from metric_module.errors import UserError

TRAIN = ("Latn", "Grek", "Cyrl", "Armn", "Arab", "Hira", "Kana", "Mlym", "Telu")
VAL = ("Geor", "Khmr")
TEST = ("Deva", "Hebr", "Thai")
AUGMENT = Augment(flip=0.0, hue=0.0)


@dataclass(eq=False, repr=False)
class GlyphDataModule(PKDataModule):
    """Letters as classes, each drawn by several font families; train, val and test contain different scripts.

    Only the plainest face of each family is used. Letters that look exactly like an earlier one in half of the fonts
    (Latin A, Greek Alpha) are removed, and so are equal images of one letter; letters that look alike in fewer fonts
    are kept. The default scripts of val and test share no letters with each other or with another split. Inputs are
    float32 ``(B, C, S, S)`` in [-1, 1], black on white, in memory, so ``num_workers=0`` is fast enough. Needs
    ``pip install 'lightning-triplets[fonts]'``.

    Args:
        fonts: Folder of the fonts, at any depth.
        train: Scripts of the training split, ISO 15924 codes.
        val: Scripts of the validation split.
        test: Scripts of the test split.
        min_fonts: Minimum number of families that draw a letter; others are removed.
        max_fonts: Maximum number of families used for a letter, drawn by ``split_seed``.
        image_size: S.
        channels: C: 1, or 3 equal channels.

    Other arguments are those of :class:`datamodules.PKDataModule`. ``fold`` holds out scripts, not letters.

    Raises:
        UserError: An argument is out of range, or a script is in two splits; in ``load``: a script has no letter that
            enough families draw.
    """

    classes_per_batch: int | None = 32
    _: KW_ONLY
    fonts: str = "/usr/share/fonts"
    train: Sequence[str] = TRAIN
    val: Sequence[str] = VAL
    test: Sequence[str] = TEST
    min_fonts: int = 6
    max_fonts: int = 20
    image_size: int = 32
    channels: int = 1
    augment: AugmentFunction | None = AUGMENT
    duplicates: str = "keep"

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("datamodule.channels", self.channels, (1, 3))
        check_no_fractions(self.fractions, "the scripts of train, val and test are the split")
        if not 2 <= self.min_fonts <= self.max_fonts:
            raise UserError(
                f"datamodule.min_fonts: expected 2 <= min_fonts <= max_fonts, got {self.min_fonts} and {self.max_fonts}"
            )
        twice = sorted({script for script in self.scripts if self.scripts.count(script) > 1})
        if twice:
            raise UserError(f"datamodule: scripts listed more than once in train, val and test: {', '.join(twice)}")

    @property
    def scripts(self) -> list[str]:
        """All scripts: those of train, val and test, in this order."""
        return [*self.train, *self.val, *self.test]

    @override
    def load(self) -> Samples:
        """Find the fonts and render the letters.

        Raises:
            UserError: A script has no letter that enough families draw.
        """
        faces = list_faces(Path(self.fonts), self.scripts)
        shuffled = [faces[place] for place in np.random.default_rng(self.split_seed).permutation(len(faces))]
        letters = render_letters(shuffled, self.image_size, self.min_fonts, self.max_fonts)
        names = sorted(letters)
        script_of_class = [script_of(name) for name in names]
        missing = [script for script in self.scripts if script not in script_of_class]
        if missing:
            raise UserError(
                f"{self.fonts}: no letters of at least {self.min_fonts} families in {', '.join(missing)}; install "
                "fonts (docs/recipes/glyphs.md), or change the scripts or datamodule.min_fonts"
            )
        images = torch.from_numpy(np.concatenate([np.stack(letters[name]) for name in names]))  # (N, S, S)
        labels = torch.arange(len(names)).repeat_interleave(torch.tensor([len(letters[name]) for name in names]))
        splits = {}
        for split, scripts in zip(SPLITS, (self.train, self.val, self.test), strict=True):
            inside = torch.tensor([script in scripts for script in script_of_class])  # (classes,)
            splits[split] = inside[labels].nonzero()[:, 0]
        return Samples(
            fetch=ImagesInMemory(images[:, None], self.image_size, self.channels),
            labels=labels,
            splits=splits,
            class_names=[f"{script} {name}" for script, name in zip(script_of_class, names, strict=True)],
        )

    @override
    def fold_units(self, samples: Samples) -> tuple[Tensor, Sequence[str]]:
        """Hold out whole scripts."""
        script = torch.tensor([self.scripts.index(name.split()[0]) for name in samples.class_names])  # (classes,)
        return script[samples.labels], self.scripts


def render_letters(faces: Sequence[Face], size: int, least: int, most: int) -> Mapping[str, list[Pixels]]:
    """Render every letter that enough faces have, without lookalikes of other letters and without equal images.

    A font that cannot be rendered is skipped with a warning.

    Args:
        faces: The faces, in the order in which images of a letter are chosen.
        size: S.
        least: Minimum number of different images of a letter.
        most: Maximum number of images to keep.

    Returns:
        Images of each letter, uint8 ``(S, S)``.
    """
    order = sorted({char for face in faces for char in face.letters})
    fonts, refused = [], list[str]()
    for face in faces:
        try:
            fonts.append(render(face.path, sorted(face.letters), size))
        except OSError as error:  # FreeType refuses some files that fontTools reads
            refused.append(f"{face.path} ({reason_of(error)})")
    for line in listed("fonts cannot be rendered, and are skipped", refused):
        rank_zero_warn(f"data: {line}")
    lookalikes = find_lookalikes(fonts, order)
    found: dict[str, list[Pixels]] = {}
    for char in order:
        if char not in lookalikes:
            different = {images[char].tobytes(): images[char] for images in fonts if char in images}
            if len(different) >= least:
                found[char] = list(different.values())[:most]
    return found
