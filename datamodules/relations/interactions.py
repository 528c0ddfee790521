"""Users and items from a table of ratings with their times."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
from typing_extensions import override

from datamodules.checks import check_at_least
from datamodules.relations.base import PairDataModule
from datamodules.relations.data import PairData
from datamodules.relations.leave_last_out import in_order, leave_last_out
from datamodules.sources.columns import Strings, encode, numbers, whole
from datamodules.sources.tables import read_table
from metric_module.errors import UserError

MOVIELENS = ("user_id", "item_id", "rating", "timestamp")
TABLES = ("u.data", "ratings.csv", "*.inter", "*.parquet")


@dataclass(eq=False, repr=False)
class InteractionsDataModule(PairDataModule):
    """Users as queries and the items they liked as references, both by number.

    A rating of ``liked_from`` or more is a positive, a lower rating is neither positive nor negative, and every item
    that a user has not rated is a negative. The last positive of each user by time is for test, the one before it for
    val; users with fewer than three positives are only in training. Both are ranked among all items except those that
    the user rated earlier. Other ratings after the val positive are not used. If a user rated an item several times,
    the last rating counts; at equal times the item with the lower number comes first.

    Inputs are ``{"user": ids}`` and ``{"item": ids}``, int64, numbered in the order of the values in the table.

    With ``history``, the input of a user is their last positives of training, and that of an item its number, both
    without the name of a tower, for one :class:`metric_module.encoders.HistoryEncoder`. In training the positives of a
    user are then ``positives_per_query`` that follow each other, from a random place on, and the input is what the user
    liked before these. Other positives are neither positive nor negative.

    Args:
        path: CSV, TSV or Parquet file, or a folder with one: ``u.data`` of MovieLens-100k, ``ratings.csv``, or a file
            that ends in ``.inter`` or ``.parquet``.
        user: Column of users.
        item: Column of items.
        rating: Column of ratings; None: all items in the table are liked.
        time: Column of times; None: the order of the rows.
        liked_from: Minimum rating of a positive.
        history: Number of last positives that stand for a user; None: a user stands for themselves, by number.

    Other arguments are those of :class:`datamodules.PairDataModule`.

    Raises:
        UserError: An argument is out of range; in ``load``: the file or a column is missing.
    """

    positives_per_query: int = 4
    _: KW_ONLY
    path: str
    user: str = "user_id"
    item: str = "item_id"
    rating: str | None = "rating"
    time: str | None = "timestamp"
    liked_from: float = 4.0
    history: int | None = None
    random_references: int | None = None

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.history is not None:
            check_at_least("datamodule.history", self.history, 1)

    @override
    def load(self) -> PairData:
        """Read the table and split it by time.

        Raises:
            UserError: The file or a column is missing, or a value has another type.
        """
        path = find_table(Path(self.path))
        columns = [name for name in (self.user, self.item, self.rating, self.time) if name is not None]
        names = MOVIELENS if path.name == "u.data" else None
        table = read_table(path, [], columns, names=names, setting="datamodule.path")
        (user, users), (item, items) = (
            encode(whole(table[name]), f"{path}: column {name!r}") for name in (self.user, self.item)
        )

        def column(name: str | None, default: np.ndarray) -> np.ndarray:
            """Read an optional column of numbers."""
            return default if name is None else numbers(table[name], f"{path}: column {name!r}")

        rating, time = column(self.rating, np.full(len(user), np.inf)), column(self.time, np.arange(len(user)))
        ordered = in_order(user.numpy(), item.numpy(), time, rating >= self.liked_from)
        return leave_last_out(ordered, Strings(users), Strings(items), self.history)


def find_table(path: Path) -> Path:
    """Find the table: the file itself, or a file in a folder.

    Args:
        path: File or folder.

    Raises:
        UserError: The folder contains no table.
    """
    if path.is_file():
        return path
    found = [file for pattern in TABLES for file in sorted(path.glob(pattern))]
    if not found:
        raise UserError(f"datamodule.path: expected a file, or a folder with {', '.join(TABLES)}, got {path}")
    return found[0]
