"""Split of ratings by time.

Shapes: n = ratings, U = users, I = items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.relations.data import PairData, Side
from datamodules.relations.history import History
from metric_module.evaluation import Sought
from metric_module.relations import Links


class Interactions(NamedTuple):
    """Ratings, each pair of user and item once, sorted by user and time.

    Attributes:
        user: Number of the user, int64 ``(n,)``.
        item: Number of the item, int64 ``(n,)``.
        liked: Whether the user liked the item, bool ``(n,)``.
    """

    user: Tensor
    item: Tensor
    liked: Tensor


def in_order(user: np.ndarray, item: np.ndarray, time: np.ndarray, liked: np.ndarray) -> Interactions:
    """Sort ratings by user and time, and keep the last of each pair of user and item.

    Args:
        user: User of each rating, ``(n,)``.
        item: Item of each rating, ``(n,)``.
        time: Time of each rating, ``(n,)``.
        liked: Whether each rating is a positive, bool ``(n,)``.
    """
    order = np.lexsort((liked, time, item, user))
    new = np.append((np.diff(user[order]) != 0) | (np.diff(item[order]) != 0), [True] * bool(len(order)))
    last = order[new.astype(bool)]  # the last rating of each pair
    order = last[np.lexsort((item[last], time[last], user[last]))]
    return Interactions(*(torch.from_numpy(np.ascontiguousarray(part[order])) for part in (user, item, liked)))


def leave_last_out(
    given: Interactions, user_names: Sequence[str], item_names: Sequence[str], history: int | None = None
) -> PairData:
    """Split by time: the last positive of each user for test, the one before for val, earlier ratings for training.

    Args:
        given: Ratings, sorted by user and time.
        user_names: Name of each user, U.
        item_names: Name of each item, I.
        history: Number of last positives that stand for a user; None: the number of the user.
    """
    user, item, liked = given
    users, items = len(user_names), len(item_names)
    number = user[liked].bincount(minlength=users)  # (U,), number of positives of each user
    place = liked.nonzero()[:, 0]  # rows of the positives
    last = number.cumsum(0) - 1  # (U,), index of each user's last positive in ``place``
    asked = (number >= 3).nonzero()[:, 0]  # evaluated users
    held = {"val": place[last[asked] - 1], "test": place[last[asked]]}  # rows
    row = torch.arange(len(user))

    def before(rows: Tensor) -> Tensor:
        """Find the ratings before those at some rows, of the same user, bool ``(n,)``."""
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
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), user[near].bincount(minlength=users).cumsum(0)])  # (U + 1,)
    positives = Links(starts, item[near])  # in order of time
    past = None if history is None else History(positives, history)
    return PairData(
        query=Side(_ids, users, "user", user_names) if past is None else Side(past, users, None, user_names),
        reference=Side(_ids, items, None if past else "item", item_names),
        positives=positives if past else Links.of(user[near], item[near], users),
        anchors=torch.unique(user[near]),
        candidates=torch.arange(items),
        sought=sought,
        neither=Links.of(user[other], item[other], users),
    )


def _ids(rows: Tensor) -> Tensor:
    """Return the ids, which are the inputs of a :class:`metric_module.encoders.LookupEncoder`."""
    return rows
