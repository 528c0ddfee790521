"""What a published data set lists: which images, of which class, on which side of its official split.

Legend: N images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from torch import Tensor

from datamodules.sampling.verification_pairs import ListedPairs
from metric_module.errors import UserError


class Listing(NamedTuple):
    """The images of a published data set. The id of an image is its row.

    Attributes:
        paths: The files, below the folder of the data set.
        labels: Class of each, int64 ``(N,)``.
        class_names: Name of each class, by label, distinct.
        test: Whether each is of the official test, bool ``(N,)``.
        units: What is held out together for validation, by label: alphabets, for example; empty: each class alone.
        groups: Camera of each, int64 ``(N,)``, or None.
        queries: Whether each is a query of the official test, bool ``(N,)``; None: all are queries and gallery.
        listed: Pairs that verification looks at, or None.
        boxes: What to cut out of each: left, top, right, bottom in pixels, int64 ``(N, 4)``, or None.
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
    """Reads the lists of one data set in its published layout: a function from its folder to a :class:`Listing`."""

    name: ClassVar[str]
    """Of the data set, for messages."""

    @abstractmethod
    def __call__(self, root: Path) -> Listing:
        """List the images; nothing but lists is read.

        Args:
            root: The folder of the data set.

        Raises:
            UserError: A list or a folder is missing, or a line of a list is of another form.
        """

    @abstractmethod
    def counts(self) -> Mapping[str, int]:
        """What a full copy has, by the names that :func:`count` gives."""


def count(listing: Listing) -> dict[str, int]:
    """How many images and classes there are on each side, and how many queries, if some images are queries alone."""
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
    """How many different ones there are."""
    return len(set(labels.tolist()))


def check_complete(reader: Reader, root: Path, listing: Listing, official: bool) -> None:
    """Compare a copy with what was published.

    Args:
        reader: Which data set.
        root: The folder of the copy.
        listing: What was found in it.
        official: Whether the counts must be those of a full copy; files that are listed must be there in any case.

    Raises:
        UserError: Files are missing, with the first of them, or a count is another one.
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
    wrong = [f"{n:,} {name}, found {found[name]:,}" for name, n in reader.counts().items() if found[name] != n]
    if wrong:
        raise UserError(
            f"{reader.name} in {root}: expected {'; '.join(wrong)}; "
            "datamodule.official=false takes it as it is, and its figures are then its own"
        )


def read_table(path: Path, columns: int, skip: int = 0) -> list[list[str]]:
    """Lines of a list, cut at white space.

    Args:
        path: The list.
        columns: Words in a line.
        skip: Lines before the first.

    Raises:
        UserError: There is no such file, it is empty, or a line has more or fewer words.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[skip:]
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} ({error})") from None
    rows = [line.split() for line in lines]
    for number, row in enumerate(rows, start=skip + 1):
        if len(row) != columns:
            raise UserError(f"{path}: expected {columns} words in line {number}, got {len(row)}")
    if not rows:
        raise UserError(f"{path}: expected lines of {columns} words, got none")
    return rows


def whole(path: Path, words: Sequence[str]) -> list[int]:
    """Whole numbers of a list.

    Args:
        path: The list, for the message.
        words: The numbers as they are written there.

    Raises:
        UserError: One is no whole number.
    """
    for word in words:
        if not word.lstrip("-").isdecimal():
            raise UserError(f"{path}: expected whole numbers, got {word!r}")
    return [int(word) for word in words]


def need_folder(path: Path) -> Path:
    """The same path.

    Raises:
        UserError: There is no such folder.
    """
    if not path.is_dir():
        raise UserError(f"no folder {path}")
    return path
