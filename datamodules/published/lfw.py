"""Labeled Faces in the Wild (Huang et al. 2007)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from typing_extensions import override

from datamodules.published.listing import Listing, Reader, whole
from datamodules.sampling.verification_pairs import read_pairs
from metric_module.errors import UserError


@dataclass(frozen=True)
class LFW(Reader):
    """13,233 photographs of 5,749 people: ``lfw/<name>/<name>_0001.jpg``, and the lists of pairs and people.

    Either view keeps the people of the test out of training.

    - View 1, for development: trains on ``peopleDevTrain.txt``, tests on ``peopleDevTest.txt`` with the 1,000 pairs of
      ``pairsDevTest.txt``.
    - View 2, for the figure that is reported: tests with the 6,000 pairs of ``pairs.txt``, ten folds, on all images of
      the people in them. Only the people of ``people.txt`` in no pair are left to train on, too few for that: it is
      meant for ``task=evaluate`` and a model trained on other people.

    Args:
        view: 1 or 2.

    Raises:
        UserError: There is no such view.
    """

    name: ClassVar[str] = "LFW"
    view: int = 1

    def __post_init__(self) -> None:
        """Check the view."""
        if self.view not in {1, 2}:
            raise UserError(f"datamodule.read.view: expected 1 or 2, got {self.view}")

    @override
    def __call__(self, root: Path) -> Listing:
        """See :class:`Reader`."""
        lists = ("peopleDevTrain.txt", "peopleDevTest.txt") if self.view == 1 else ("people.txt",)
        parts = [read_people(root / name) for name in lists]
        people = sorted({name: count for part in parts for name, count in part.items()}.items())
        both = sorted(set(parts[0]) & set(parts[-1])) if self.view == 1 else []
        if both:
            raise UserError(f"{root}: {both[0]} is in {' and in '.join(lists)}")
        labels = torch.arange(len(people)).repeat_interleave(torch.tensor([count for _, count in people]))  # (N,)
        rows = [(name, number) for name, count in people for number in range(1, count + 1)]
        listed = read_pairs(
            root / ("pairsDevTest.txt" if self.view == 1 else "pairs.txt"), {row: id for id, row in enumerate(rows)}
        )
        tested = torch.zeros(len(people), dtype=torch.bool)  # (classes,)
        tested[labels[listed.pairs.flatten()]] = True
        if self.view == 1:
            tested = torch.tensor([name in parts[1] for name, _ in people])
        return Listing(
            paths=[f"lfw/{name}/{name}_{number:04d}.jpg" for name, number in rows],
            labels=labels,
            class_names=[name for name, _ in people],
            test=tested[labels],
            listed=listed,
        )

    @override
    def counts(self) -> Mapping[str, int]:
        """See :class:`Reader`."""
        found = {"images": 13233, "classes": 5749}
        if self.view == 2:
            return found
        return found | {
            "training images": 9525,
            "training classes": 4038,
            "test images": 3708,
            "test classes": 1711,
        }


def read_people(path: Path) -> dict[str, int]:
    """Number of images of each person of ``people.txt`` and its like: ``name number``, and lines of one number between.

    Args:
        path: The list.

    Raises:
        UserError: There is no such file, a line is of another form, or there is no person.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} ({error})") from None
    for number, words in enumerate(lines, start=1):
        if not 1 <= len(words) <= 2 or not words[-1].isdecimal():
            raise UserError(f"{path}: expected a name and a number in line {number}, got {' '.join(words)!r}")
    people = [words for words in lines if len(words) == 2]
    if not people:
        raise UserError(f"{path}: expected names and numbers of images, got none")
    return dict(zip([name for name, _ in people], whole(path, [count for _, count in people]), strict=True))
