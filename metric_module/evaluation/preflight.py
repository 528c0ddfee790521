"""Figures that a set cannot have, found from its labels, groups, queries and pairs before anything is embedded.

Shapes: N = samples of the set, C = classes, P = pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor


class Labelled(NamedTuple):
    """Labels, groups, queries and pairs of an evaluated set, without its embeddings.

    Attributes:
        labels: Class of each sample, int64 ``(N,)``.
        ids: Id of each sample, int64 ``(N,)``.
        groups: Group of each sample, int64 ``(N,)``, or None.
        queries: Whether each sample is a query or else gallery, bool ``(N,)``; None: all are both.
        pairs: Pairs of ids that verification compares, int64 ``(P, 2)``; None: all pairs.
        folds: Fold of each pair, int64 ``(P,)``, or None.
    """

    labels: Tensor
    ids: Tensor
    groups: Tensor | None = None
    queries: Tensor | None = None
    pairs: Tensor | None = None
    folds: Tensor | None = None


class Missing(NamedTuple):
    """Figures that a set cannot have.

    Attributes:
        figures: Their names, as patterns in which ``*`` stands for any text.
        reason: Why, and which setting changes it.
    """

    figures: Sequence[str]
    reason: str

    def names(self, figure: str) -> bool:
        """Return whether a figure is among them."""
        return any(fnmatchcase(figure, pattern) for pattern in self.figures)


def without_positives(data: Labelled, across: bool = False) -> str | None:
    """Say why no query has a positive in the gallery; None if one has.

    Args:
        data: The set.
        across: Whether a positive must be of another group than the query.
    """
    everything = torch.ones_like(data.labels, dtype=torch.bool)
    asked, found = (everything, everything) if data.queries is None else (data.queries, ~data.queries)
    group = data.groups if across and data.groups is not None else data.ids  # a sample is not its own positive
    labels, which = torch.unique(data.labels, return_inverse=True)  # (C,), (N,)
    lowest = torch.full_like(labels, torch.iinfo(torch.int64).max)
    highest = torch.full_like(labels, torch.iinfo(torch.int64).min)
    lowest.scatter_reduce_(0, which[found], group[found], "amin")
    highest.scatter_reduce_(0, which[found], group[found], "amax")
    low, high = lowest[which], highest[which]  # (N,), of the gallery items of the same class
    if bool((asked & (low <= high) & ((low != group) | (high != group))).any()):
        return None
    where = "its class in another group" if across else "its class"
    inside = "" if data.queries is None else f" among {int(found.sum()):,} items of the gallery"
    advice = (
        "datamodule: groups" if across else "datamodule: labels, split" + ("" if data.queries is None else ", role")
    )
    return f"none of {int(asked.sum()):,} queries has another item of {where}{inside} ({advice})"


def without_two_kinds(data: Labelled) -> str | None:
    """Say why there are not both pairs of one class and pairs of two; None if there are.

    Args:
        data: The set; its pairs are used if all of their samples are in it, otherwise all pairs.
    """
    if data.pairs is not None and bool(torch.isin(data.pairs, data.ids).all()):
        order = data.ids.argsort()
        rows = order[torch.searchsorted(data.ids[order], data.pairs.contiguous())]  # (P, 2)
        same = data.labels[rows[:, 0]] == data.labels[rows[:, 1]]  # (P,)
        if bool(same.all()) or not bool(same.any()):
            return f"all {len(same):,} listed pairs are of {'one class' if len(same) and same[0] else 'two classes'}"
        if data.folds is not None and len(torch.unique(data.folds)) < 2:
            return "all listed pairs are in one fold"
        return None
    sizes = torch.unique(data.labels, return_counts=True)[1]  # (C,)
    if len(sizes) < 2:
        return f"expected at least 2 classes, got {len(sizes)} (datamodule: labels, split)"
    return (
        None
        if int(sizes.max()) > 1
        else f"each of {len(sizes):,} classes has a single sample (datamodule: labels, split)"
    )


def too_few_classes(data: Labelled, ways: int, shot: int) -> str | None:
    """Say why an episode cannot be drawn; None if it can.

    Args:
        data: The set.
        ways: Number of classes in an episode.
        shot: Number of support samples of a class.
    """
    sizes = torch.unique(data.labels, return_counts=True)[1]  # (C,)
    large = int((sizes > shot).sum())
    if large >= ways:
        return None
    return (
        f"{large} of {len(sizes)} classes have more than {shot} samples, and an episode takes {ways} "
        f"(evaluation.few_shot: lower ways={ways} or leave {shot} out of shots)"
    )
