"""Reader of Labeled Faces in the Wild (Huang et al. 2007)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from typing_extensions import override

from datamodules.checks import check_choice
from datamodules.published.listing import Listing, Reader, whole
from datamodules.sampling.verification_pairs import read_pairs
from datamodules.sources.paths import read_lines
from metric_module.errors import UserError

ALL = {"images": 13233, "classes": 5749}
VIEW_1 = {"training images": 9525, "training classes": 4038, "test images": 3708, "test classes": 1711}


@dataclass(unsafe_hash=True)
class LFW(Reader):
    """13,233 photos of 5,749 people: ``lfw/<name>/<name>_0001.jpg``, and the lists of pairs and people.

    Both views keep the people of the test out of training.

    - View 1, for development: trains on ``peopleDevTrain.txt``, tests on ``peopleDevTest.txt`` with the 1,000 pairs of
      ``pairsDevTest.txt``.
    - View 2, for the reported figure: tests with the 6,000 pairs of ``pairs.txt``, in ten folds, on all images of the
      people in them. Only people of ``people.txt`` in no pair remain for training, which are too few: use it with
      ``task=evaluate`` and a model trained on other people.

    Args:
        view: 1 or 2.

    Raises:
        UserError: The view is neither 1 nor 2.
    """

    name: ClassVar[str] = "LFW"
    view: int = 1

    def __post_init__(self) -> None:
        """Check the view."""
        check_choice("datamodule.read.view", self.view, (1, 2))

    @property
    @override
    def counts(self) -> Mapping[str, int]:
        """Numbers of a full copy in this view."""
        return ALL | VIEW_1 if self.view == 1 else ALL

    @override
    def __call__(self, root: Path) -> Listing:
        """List the images, see :class:`Reader`."""
        lists = ("peopleDevTrain.txt", "peopleDevTest.txt") if self.view == 1 else ("people.txt",)
        people_of = [read_people(root / name) for name in lists]
        people = sorted({name: count for part in people_of for name, count in part.items()}.items())
        both = sorted(set(people_of[0]) & set(people_of[-1])) if self.view == 1 else []
        if both:
            raise UserError(f"{root}: {both[0]} is in {' and in '.join(lists)}")
        labels = torch.arange(len(people)).repeat_interleave(torch.tensor([count for _, count in people]))  # (N,)
        rows = [(name, number) for name, count in people for number in range(1, count + 1)]
        pairs_file = root / ("pairsDevTest.txt" if self.view == 1 else "pairs.txt")
        listed = read_pairs(pairs_file, {row: id for id, row in enumerate(rows)})
        if self.view == 1:
            tested = torch.tensor([name in people_of[1] for name, _ in people])  # (classes,)
        else:
            tested = torch.zeros(len(people), dtype=torch.bool)  # (classes,)
            tested[labels[listed.pairs.flatten()]] = True
        return Listing(
            paths=[f"lfw/{name}/{name}_{number:04d}.jpg" for name, number in rows],
            labels=labels,
            class_names=[name for name, _ in people],
            test=tested[labels],
            listed=listed,
        )


def read_people(path: Path) -> dict[str, int]:
    """Read the number of images of each person from a list such as ``people.txt``.

    Lines are ``name number``; lines with a single number, which counts people, are skipped.

    Args:
        path: The list.

    Raises:
        UserError: The file is missing, a line has another form, or the list names nobody.
    """
    lines = [line.split() for line in read_lines(path) if line.strip()]
    for number, words in enumerate(lines, start=1):
        if not 1 <= len(words) <= 2 or not words[-1].isdecimal():
            raise UserError(f"{path}: expected a name and a number in line {number}, got {' '.join(words)!r}")
    people = [words for words in lines if len(words) == 2]
    if not people:
        raise UserError(f"{path}: expected names and numbers of images, got none")
    return dict(zip([name for name, _ in people], whole(path, [count for _, count in people]), strict=True))
