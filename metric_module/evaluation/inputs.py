"""Checks of embeddings, labels, ids and groups.

Shapes: N = samples, C = classes, Q = queries, M = gallery items, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.checks import check_labels
from metric_module.errors import UserError
from metric_module.functional import at_least_float32, float64_device, nonfinite_rows


class Items(NamedTuple):
    """Embeddings ``(N, D)``, in float32 or float64, with int64 labels, ids and groups ``(N,)``."""

    embeddings: Tensor
    labels: Tensor
    ids: Tensor | None
    groups: Tensor | None

    def each(self, change: Callable[[Tensor], Tensor]) -> Items:
        """Apply a function to every tensor that is given."""
        ids, groups = (None if part is None else change(part) for part in (self.ids, self.groups))
        return Items(change(self.embeddings), change(self.labels), ids, groups)


def check_items(
    embeddings: Tensor, labels: Tensor, ids: Tensor | None, groups: Tensor | None, *, prefix: str = ""
) -> Items:
    """Check embeddings with their labels, ids and groups, and bring them to one device.

    Args:
        embeddings: Rows ``(N, D)``. float16 and bfloat16 become float32.
        labels: Integers ``(N,)``.
        ids: Integers ``(N,)``, or None.
        groups: Integers ``(N,)``, or None.
        prefix: Beginning of the arguments' names in a message.

    Returns:
        The items, detached, on the device of the embeddings (on the CPU if that device has no float64).

    Raises:
        UserError: If a shape or type is wrong, or an embedding is not finite.
    """
    name = "gallery" if prefix else "embeddings"
    if not isinstance(embeddings, Tensor) or embeddings.ndim != 2 or embeddings.shape[1] == 0:
        got = tuple(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
        raise UserError(f"{name}: expected a tensor of shape [N, D], got {got}")
    if not embeddings.is_floating_point():
        raise UserError(f"{name}: expected floating point numbers, got {embeddings.dtype}")
    rows = at_least_float32(embeddings.detach())  # (N, D)
    rows = rows.to(float64_device(rows.device))
    checked = Items(
        rows,
        _integers(f"{prefix}labels", labels, rows),
        None if ids is None else _integers(f"{prefix}ids", ids, rows),
        None if groups is None else _integers(f"{prefix}groups", groups, rows),
    )
    _check_finite(name, checked)
    return checked


def check_sides(query: Items, gallery: Sequence[Tensor | None]) -> tuple[Items, Items]:
    """Check queries and gallery, and that they fit together.

    Args:
        query: The queries as the user gave them. Without ids and gallery, row numbers become their ids.
        gallery: Embeddings, labels, ids and groups of the items to search, each or all of them None; without embeddings
            and labels the queries are their own gallery.

    Returns:
        The queries and the gallery, on one device; the same object twice if the queries are their own gallery.

    Raises:
        UserError: If a shape, type or number is wrong, only one side has labels, ids or groups, an id comes twice in
            the gallery, or one id has two labels.
    """
    queries = check_items(*query)
    embeddings, labels, ids, groups = gallery
    if embeddings is not None and labels is not None:
        items = check_items(embeddings, labels, ids, groups, prefix="gallery_")
        items = items.each(lambda part: part.to(queries.embeddings.device))
    else:
        names = ("gallery", "gallery_labels", "gallery_ids", "gallery_groups")
        given = [name for name, value in zip(names, gallery, strict=True) if value is not None]
        if given:
            raise UserError(f"gallery and gallery_labels: expected both or neither, got only {', '.join(given)}")
        if queries.ids is None:
            queries = queries._replace(ids=torch.arange(len(queries.labels), device=queries.labels.device))
        items = queries
    _check_together(queries, items)
    return queries, items


def by_class(labels: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Sort samples by class, and by id within a class.

    Args:
        labels: Class of each sample, int64 ``(N,)``.
        ids: Id of each sample, int64 ``(N,)``; None: their rows.

    Returns:
        The rows in this order ``(N,)``, and the classes with their numbers of samples, ascending, ``(C,)`` each.
    """
    order = torch.arange(len(labels), device=labels.device) if ids is None else ids.argsort()  # (N,)
    order = order[labels[order].argsort(stable=True)]
    return order, *torch.unique_consecutive(labels[order], return_counts=True)


def check_cutoffs(recall_at: Sequence[int]) -> tuple[int, ...]:
    """Check the cut-offs k of recall at k, and return them as a tuple.

    Args:
        recall_at: The values of k, different integers of 1 or more.

    Raises:
        UserError: If one is not a positive integer, or comes twice.
    """
    cutoffs = tuple(recall_at)
    whole = all(isinstance(k, int) and not isinstance(k, bool) and k >= 1 for k in cutoffs)
    if not whole or len(set(cutoffs)) != len(cutoffs):
        raise UserError(f"recall_at: expected different integers, 1 or more, got {list(cutoffs)}")
    return cutoffs


def _check_together(query: Items, gallery: Items) -> None:
    if query.embeddings.shape[1] != gallery.embeddings.shape[1]:
        expected, got = query.embeddings.shape[1], gallery.embeddings.shape[1]
        raise UserError(f"gallery: expected shape [M, {expected}], as wide as the queries, got [M, {got}]")
    for name, mine, theirs in (("ids", query.ids, gallery.ids), ("groups", query.groups, gallery.groups)):
        if (mine is None) != (theirs is None):
            missing = name if mine is None else f"gallery_{name}"
            raise UserError(f"{name} and gallery_{name}: expected both or neither, {missing} is missing")
    if query.ids is None or gallery.ids is None:
        return
    ordered, order = gallery.ids.sort()  # (M,), (M,)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        name = "ids" if query is gallery else "gallery_ids"
        raise UserError(f"{name}: expected each id once, got {int(twice[0])} more than once ({len(twice)} repeated)")
    if query is gallery or not len(ordered):
        return
    place = torch.searchsorted(ordered, query.ids).clamp_(max=len(ordered) - 1)  # (Q,)
    other = gallery.labels[order[place]]  # (Q,)
    clash = ((ordered[place] == query.ids) & (other != query.labels)).nonzero().flatten()
    if len(clash):
        row = clash[0]
        raise UserError(
            f"gallery_labels: id {int(query.ids[row])} has label {int(query.labels[row])} as a query "
            f"and {int(other[row])} in the gallery; expected the same"
        )


def _integers(name: str, values: Tensor, rows: Tensor) -> Tensor:
    return check_labels(name, values, len(rows)).detach().to(rows.device)


def _check_finite(name: str, items: Items) -> None:
    bad = nonfinite_rows(items.embeddings)
    if not len(bad):
        return
    ids = "" if items.ids is None else f", ids {items.ids[bad[:5]].tolist()}"
    raise UserError(
        f"{name}: expected finite numbers, got NaN or infinity in {len(bad)} of {len(items.embeddings)} rows "
        f"(first rows {bad[:5].tolist()}{ids})"
    )
