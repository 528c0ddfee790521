"""Users and items from a table of who rated what, and when.

Legend: n interactions, U users, I items.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from datamodules.relations.base import PairDataModule
from datamodules.relations.data import PairData, Side
from datamodules.sources.columns import Strings, encode, numbers, whole
from datamodules.sources.preflight import check_given
from datamodules.sources.tables import read_table
from metric_module.errors import UserError
from metric_module.evaluation import Sought
from metric_module.relations import Links

MOVIELENS = ("user_id", "item_id", "rating", "timestamp")
KNOWN = ("u.data", "ratings.csv", "*.inter", "*.parquet")


class Interactions(NamedTuple):
    """Who rated what, each pair once, sorted by user and time.

    Attributes:
        user: Int64 ``(n,)``.
        item: Int64 ``(n,)``.
        liked: Bool ``(n,)``.
    """

    user: Tensor
    item: Tensor
    liked: Tensor


@dataclass(eq=False, repr=False)
class InteractionsDataModule(PairDataModule):
    """Users, and the items that they liked: queries are users, references are items, both by number.

    A rating of ``liked_from`` or more is a positive, a lower one is neither positive nor negative, and every item that
    a user has not rated is a negative. The last positive of each user by time is for test, the one before for val;
    users with fewer than three stay in training. Both are looked for among all items but those that the user had rated
    before. What a user rated after the val positive, other than the test positive, is not used at all. Of several
    ratings of one item by one user the last counts; at equal times the item with the lower number comes first.

    Inputs are ``{"user": ids}`` and ``{"item": ids}``, int64, numbered in the order of the values in the table.

    Args:
        path: A CSV, TSV or Parquet file, or a folder with one: ``u.data`` of MovieLens-100k, ``ratings.csv``, or a file
            that ends in ``.inter`` or ``.parquet``.
        user: Column of users.
        item: Column of items.
        rating: Column of ratings; None: whatever is in the table is liked.
        time: Column of times; None: the order of the rows.
        liked_from: The least rating of a positive.

    Other arguments are those of :class:`datamodules.PairDataModule`.

    Raises:
        UserError: There is no such file, or it lacks a column.
    """

    _: KW_ONLY
    path: str
    user: str = "user_id"
    item: str = "item_id"
    rating: str | None = "rating"
    time: str | None = "timestamp"
    liked_from: float = 4.0

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_given("datamodule.path", self.path)

    @override
    def load(self) -> PairData:
        """Read the table and split it by time."""
        path = find_table(Path(self.path))
        columns = [name for name in (self.user, self.item, self.rating, self.time) if name is not None]
        names = MOVIELENS if path.name == "u.data" else None
        found = read_table(path, [], columns, names=names, setting="datamodule.path")
        (user, users), (item, items) = (
            encode(whole(found[name]), f"{path}: column {name!r}") for name in (self.user, self.item)
        )
        size = len(user)

        def column(name: str | None, without: np.ndarray) -> np.ndarray:
            return without if name is None else numbers(found[name], f"{path}: column {name!r}")

        rating, time = column(self.rating, np.full(size, np.inf)), column(self.time, np.arange(size))
        ordered = in_order(user.numpy(), item.numpy(), time, rating >= self.liked_from)
        data = leave_last_out(ordered, len(users), len(items))
        assert data.reference is not None
        query, reference = data.query._replace(names=Strings(users)), data.reference._replace(names=Strings(items))
        return data._replace(query=query, reference=reference)


def find_table(path: Path) -> Path:
    """The table itself, or the one in a folder.

    Raises:
        UserError: If there is none.
    """
    if path.is_file():
        return path
    found = [file for pattern in KNOWN for file in sorted(path.glob(pattern))]
    if not found:
        raise UserError(f"datamodule.path: expected a file, or a folder with {', '.join(KNOWN)}, got {path}")
    return found[0]


def in_order(user: np.ndarray, item: np.ndarray, time: np.ndarray, liked: np.ndarray) -> Interactions:
    """Sort by user and time, and keep the last of equal pairs.

    Args:
        user: Of each interaction, ``(n,)``.
        item: Of each.
        time: Of each.
        liked: Of each, bool.
    """
    order = np.lexsort((liked, time, item, user))
    new = np.append((np.diff(user[order]) != 0) | (np.diff(item[order]) != 0), [True] * bool(len(order)))
    last = order[new.astype(bool)]  # the last of each pair
    order = last[np.lexsort((item[last], time[last], user[last]))]
    return Interactions(*(torch.from_numpy(np.ascontiguousarray(part[order])) for part in (user, item, liked)))


def leave_last_out(given: Interactions, users: int, items: int) -> PairData:
    """The last positive of each user for test, the one before for val, what came before for training.

    Args:
        given: Sorted by user and time.
        users: U.
        items: I.
    """
    user, item, liked = given
    number = user[liked].bincount(minlength=users)  # (U,), positives of each user
    place = liked.nonzero()[:, 0]  # rows of the positives
    last = number.cumsum(0) - 1  # (U,), where among these each user's last is
    asked = (number >= 3).nonzero()[:, 0]  # users that are evaluated
    held = {"val": place[last[asked] - 1], "test": place[last[asked]]}  # rows
    row = torch.arange(len(user))

    def before(rows: Tensor) -> Tensor:
        """Which interactions came before the one at a row of the same user, bool ``(n,)``."""
        limit = torch.full((users,), len(user))
        limit[asked] = rows
        return row < limit[user]

    of = torch.full((users,), -1)
    of[asked] = torch.arange(len(asked))
    ids = torch.arange(items) + users
    sought = {}
    for split, rows in held.items():
        seen = before(rows) & (of[user] >= 0)  # (n,)
        positives = Links.of(torch.arange(len(asked)), item[rows], len(asked))
        sought[split] = Sought(asked, ids, positives, Links.of(of[user[seen]], item[seen], len(asked)))
    early = before(held["val"])  # (n,)
    near, other = early & liked, early & ~liked
    return PairData(
        query=Side(_themselves, users, "user"),
        reference=Side(_themselves, items, "item"),
        positives=Links.of(user[near], item[near], users),
        anchors=torch.unique(user[near]),
        candidates=torch.arange(items),
        sought=sought,
        neither=Links.of(user[other], item[other], users),
    )


def _themselves(rows: Tensor) -> Tensor:
    """Ids are what a :class:`metric_module.encoders.LookupEncoder` takes."""
    return rows
