"""Common form of published data sets: their images with classes and official split.

Legend: N = images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from torch import Tensor

from datamodules.sampling.verification_pairs import ListedPairs
from datamodules.sources.paths import read_lines
from metric_module.errors import UserError


class Listing(NamedTuple):
    """Images of a published data set. The id of an image is its row.

    Attributes:
        paths: Image files, relative to the folder of the data set.
        labels: Class of each image, int64 ``(N,)``.
        class_names: Name of each class, by label, distinct.
        test: Whether each image belongs to the official test, bool ``(N,)``.
        units: Unit of each class, such as its alphabet; validation holds out whole units; empty: each class is one.
        groups: Camera of each image, int64 ``(N,)``, or None.
        queries: Whether each image is a query of the official test, bool ``(N,)``; None: all are queries and gallery.
        listed: Pairs that verification compares; None: all pairs.
        boxes: Box of each image to crop: left, top, right, bottom in pixels, int64 ``(N, 4)``; None: no crop.
    """

    paths: Sequence[str]
    labels: Tensor
    class_names: Sequence[str]
    test: Tensor
    units: Sequence[str] = ()
    groups: Tensor | None = None
    queries: Tensor | None = None
    listed: ListedPairs | None = None
    boxes: Tensor | None = None


class Reader(ABC):
    """Reader of one data set in its published layout: a function from its folder to a :class:`Listing`."""

    name: ClassVar[str]
    """Name of the data set, for messages."""

    @property
    @abstractmethod
    def counts(self) -> Mapping[str, int]:
        """Numbers of a full copy, by the names that :func:`count` returns."""

    @abstractmethod
    def __call__(self, root: Path) -> Listing:
        """List the images; only the lists are read.

        Args:
            root: Folder of the data set.

        Raises:
            UserError: A list or a folder is missing, or a line of a list has another form.
        """


def count(listing: Listing) -> dict[str, int]:
    """Count images and classes of training part and test, and queries, if the test separates them from the gallery."""
    train, test, queries = ~listing.test, listing.test, listing.queries
    found = {
        "images": len(listing.paths),
        "classes": number_of(listing.labels),
        "training images": int(train.sum()),
        "training classes": number_of(listing.labels[train]),
        "test images": int(test.sum()),
    }
    if queries is None:
        return found | {"test classes": number_of(listing.labels[test])}
    found |= {"queries": int(queries.sum()), "gallery images": int((test & ~queries).sum())}
    return found | {"query classes": number_of(listing.labels[queries])}


def number_of(labels: Tensor) -> int:
    """Count the distinct labels."""
    return len(set(labels.tolist()))


def check_complete(reader: Reader, root: Path, listing: Listing, official: bool) -> None:
    """Check that a copy is complete.

    Args:
        reader: Reader of the data set.
        root: Folder of the copy.
        listing: Images listed in the copy.
        official: Whether the numbers of images and classes must be the official ones; listed files must exist anyway.

    Raises:
        UserError: Files are missing, or a number differs from the official one.
    """
    missing = [path for path in listing.paths if not (root / path).is_file()]
    if missing:
        total = len(listing.paths)
        raise UserError(
            f"{reader.name} in {root}: expected {total:,} images, found {total - len(missing):,}; "
            f"first missing: {missing[0]}"
        )
    if not official:
        return
    found = count(listing)
    wrong = [f"{n:,} {name}, found {found[name]:,}" for name, n in reader.counts.items() if found[name] != n]
    if wrong:
        raise UserError(
            f"{reader.name} in {root}: expected {'; '.join(wrong)}; "
            "+datamodule.official=false accepts it, but its figures are not comparable"
        )


def read_table(path: Path, columns: int, skip: int = 0) -> list[list[str]]:
    """Read the lines of a list, split at white space.

    Args:
        path: The list.
        columns: Number of words in a line.
        skip: Number of lines before the first row.

    Raises:
        UserError: The file is missing or empty, or a line has more or fewer words.
    """
    rows = [line.split() for line in read_lines(path)[skip:]]
    for number, row in enumerate(rows, start=skip + 1):
        if len(row) != columns:
            raise UserError(f"{path}: expected {columns} words in line {number}, got {len(row)}")
    if not rows:
        raise UserError(f"{path}: expected lines of {columns} words, got none")
    return rows


def whole(path: Path, words: Sequence[str]) -> list[int]:
    """Convert words to whole numbers.

    Args:
        path: The list they come from, for the message.
        words: The words.

    Raises:
        UserError: A word is not a whole number.
    """
    for word in words:
        if not word.lstrip("-").isdecimal():
            raise UserError(f"{path}: expected whole numbers, got {word!r}")
    return [int(word) for word in words]
