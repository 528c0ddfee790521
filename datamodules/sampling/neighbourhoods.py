"""Class neighbourhoods: rounds of training batches in which near classes meet.

Graph sampling (Liao and Shao 2022, "Graph sampling based deep metric learning for generalizable person
re-identification", section 3.2) makes a batch of one class and its nearest ones. Here a batch consists of several such
groups, and a round is a partition: no class has two turns in it.

Legend: C = classes, P = classes per batch, N = neighbours of a class in a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from datamodules.checks import check_at_least
from metric_module.errors import UserError, did_you_mean

LAG = 40
"""Batches that may be drawn ahead of training; a constant, so that training does not depend on the workers."""
AHEAD = 2
"""Batches that torch's loader draws ahead for each worker."""

_DEFAULTS = {"group": 4, "share": 1.0, "every": 100}


def complete(settings: Mapping[str, Any] | None, workers: int = 0) -> dict[str, Any] | None:
    """Check the settings of class neighbourhoods, and fill in the default of each that is not given.

    Args:
        settings: ``group``, ``share`` and ``every``; None: no neighbourhoods.
        workers: Worker processes of the training loader.

    Raises:
        UserError: A key is unknown, a value is out of range, or the workers read too far ahead.

    Example:
        >>> complete({"group": 8})
        {'group': 8, 'share': 1.0, 'every': 100}
    """
    if settings is None:
        return None
    if not isinstance(settings, Mapping):
        raise UserError(f"datamodule.neighbours: expected null or settings such as {{group: 4}}, got {settings!r}")
    for key in settings:
        if key not in _DEFAULTS:
            options = list(_DEFAULTS)
            hint = did_you_mean(str(key), options)
            raise UserError(f"datamodule.neighbours: unknown key {key!r}: {hint}allowed: {', '.join(options)}")
    found: dict[str, Any] = {**_DEFAULTS, **settings}
    for name, least in (("group", 2), ("every", 1)):
        if type(found[name]) is not int:
            raise UserError(f"datamodule.neighbours.{name}: expected an integer >= {least}, got {found[name]!r}")
        check_at_least(f"datamodule.neighbours.{name}", found[name], least)
    if type(found["share"]) not in {int, float} or not 0 < found["share"] <= 1:
        raise UserError(f"datamodule.neighbours.share: expected 0 < share <= 1, got {found['share']!r}")
    if AHEAD * workers >= LAG:
        most = (LAG - 1) // AHEAD
        raise UserError(
            f"datamodule.num_workers: expected at most {most} with datamodule.neighbours, which must know the classes "
            f"before the workers read them, got {workers}"
        )
    return found


class Neighbourhoods:
    """Groups of near classes for a sampler: settings, and tables of neighbours.

    Row c of a table lists the nearest classes of class c, nearest first, int32 ``(C, N)``. The classes have the numbers
    0 to C - 1 in the order of their labels. Steps are counted from the start of training.

    Args:
        group: Classes in a group.
        share: Share of a batch's classes that come in groups; the others are drawn at random.

    Attributes:
        tables: Each table, by the step from which it holds: the first one of a round.
    """

    def __init__(self, group: int, share: float) -> None:
        self.group = group
        self.share = share
        self.tables: dict[int, Tensor] = {}
        self._last: tuple[int, Tensor, Tensor] | None = None

    def check(self, classes_per_batch: int) -> None:
        """Accept batches that have room for a group.

        Args:
            classes_per_batch: P, over all processes together.

        Raises:
            UserError: There are fewer classes in a batch than in a group, or fewer than two of them come in groups.
        """
        if self.group > classes_per_batch:
            expected = f"2 to {classes_per_batch}, the number of classes in a batch"
            raise UserError(f"datamodule.neighbours.group: expected {expected}, got {self.group}")
        if round(self.share * classes_per_batch) < 2:
            raise UserError(
                f"datamodule.neighbours.share: expected at least {2 / classes_per_batch:.3g}, which is two of "
                f"{classes_per_batch} classes in a batch, got {self.share}"
            )

    def from_step(self, step: int) -> dict[int, Tensor]:
        """Return the tables that are in force at a step, the first one of a round, or later.

        Args:
            step: The step.
        """
        oldest = max((first for first in self.tables if first <= step), default=step)
        return {first: table for first, table in self.tables.items() if first >= oldest}

    def in_force(self, step: int) -> Tensor:
        """Return the newest table that holds at a step.

        Args:
            step: First step of a round.

        Raises:
            UserError: There is none: nothing computes tables.
        """
        held = [first for first in self.tables if first <= step]
        if not held:
            raise UserError(
                f"datamodule.neighbours: no table of neighbours at step {step}; add the callback that computes it "
                "(callbacks=default, in Python metric_module.callbacks.ClassNeighbours()), and train a TripletModule"
            )
        return self.tables[max(held)]

    def order(self, number: int, step: int, keyed: Callable[[], Tensor], classes_per_batch: int) -> Tensor:
        """Order the classes of a round, see :func:`grouped`; the last order is kept.

        Args:
            number: Number of the round.
            step: Its first step.
            keyed: Returns all classes in keyed order, int64 ``(C,)``.
            classes_per_batch: P.
        """
        table = self.in_force(step)
        if self._last is None or self._last[0] != number or self._last[1] is not table:
            found = grouped(keyed(), table, classes_per_batch, self.group, round(self.share * classes_per_batch))
            self._last = (number, table, found)
        return self._last[2]


def grouped(keyed: Tensor, table: Tensor, classes_per_batch: int, group: int, in_groups: int) -> Tensor:
    """Order the classes of a round greedily, so that near ones are in one batch.

    A group is the next class in keyed order that has had no turn, and its nearest classes of the table that have had
    none. It is smaller where the table has no more of these, and where the part of the batch for groups ends.

    Args:
        keyed: All classes in keyed order, int64 ``(C,)``.
        table: Nearest classes of each class, nearest first, int32 ``(C, N)``.
        classes_per_batch: P.
        group: Classes in a group.
        in_groups: Classes of a batch that come in groups; the others are the next ones in keyed order.

    Returns:
        The same classes, batch after batch, int64 ``(C,)``.

    Example:
        >>> pairs = torch.tensor([[3], [2], [1], [0]])  # 0 and 3 are near, and so are 1 and 2
        >>> grouped(torch.tensor([0, 1, 2, 3]), pairs, classes_per_batch=2, group=2, in_groups=2).tolist()
        [0, 3, 1, 2]
    """
    rows, used, found = table.numpy(), bytearray(len(keyed)), list[int]()
    for first in keyed.tolist():
        if used[first]:
            continue
        used[first] = 1
        found.append(first)
        left = in_groups - (len(found) - 1) % classes_per_batch - 1  # places of the batch that groups may still take
        wanted = min(group - 1, left)
        for other in rows[first].tolist() if wanted > 0 else ():
            if not used[other]:
                used[other] = 1
                found.append(other)
                wanted -= 1
                if not wanted:
                    break
    return torch.tensor(found)
