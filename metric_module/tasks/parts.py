"""Construction of one group of the configuration, as the kind of object that the group stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from metric_module.config.arguments import check_arguments
from metric_module.config.instances import build, check_kind, reason
from metric_module.config.trust import PARTS
from metric_module.config.words import CAN_BE_OFF
from metric_module.criterion import TripletCriterion
from metric_module.distances import Distance
from metric_module.errors import UserError
from metric_module.evaluation import EmbeddingMetric
from metric_module.miners import Miner
from metric_module.training.optimizers import build_scheduler


class Group(NamedTuple):
    """Rule for a group of the configuration.

    Attributes:
        kind: Class of the objects that it builds; for a function that builds one later, ``Callable``.
        several: Whether it names several objects, ``callbacks.ema``, each with a ``_target_`` of its own.
        later: Arguments that the program gives when it calls a ``_partial_`` node; None if it is built at once.
    """

    kind: Any
    several: bool = False
    later: tuple[str, ...] | None = None


GROUPS = {
    "encoder": Group(nn.Module),
    "distance": Group(Distance),
    "miner": Group(Miner),
    "criterion": Group(TripletCriterion),
    "datamodule": Group(LightningDataModule),
    "optimizer": Group(Callable, later=("params",)),
    "scheduler": Group(Callable, later=("optimizer", "total_steps")),
    "evaluation": Group(EmbeddingMetric, several=True),
    "trainer": Group(Trainer),
    "logger": Group(Logger, several=True),
    "callbacks": Group(Callback, several=True),
}
"""Groups that a task builds, in the order in which they are checked."""


def check_group(name: str, node: Any) -> None:
    """Check the form of a group, then its arguments against the signatures of what it builds.

    Args:
        name: Name of the group.
        node: Its plain content.

    Raises:
        UserError: If the group is empty although it is needed, a node has no ``_target_``, or an argument does not fit.
    """
    group = GROUPS[name]
    if not node and name in CAN_BE_OFF:
        return
    if not isinstance(node, Mapping) or not node:
        raise UserError(f"{name}: expected what to build, got {node!r}; give {name}=<option>, --help lists them")
    if group.several and "_target_" in node:
        raise UserError(f"{name}: expected names, {{some_name: {{_target_: ...}}}}, got a single _target_")
    for path, part in _parts(name, node):
        if not isinstance(part, Mapping) or "_target_" not in part:
            hint = f"; to leave it out give ~{path}" if group.several else f"; give {name}=<option>"
            raise UserError(f"{path}: expected what to build, with its _target_, got {part!r}{hint}")
        shipped = PARTS.fullmatch(str(part["_target_"]))
        if shipped and group.later is not None and part.get("_partial_") is not True:
            raise UserError(f"{path}._partial_: expected true, as {name} is built later, with {group.later[0]}")
        check_kind(path, part["_target_"], group.kind)
    check_arguments(name, node, group.later or ())


def build_group(name: str, node: Any, given: Mapping[str, Any] | None = None) -> Any:
    """Build what a group describes, with plain lists and dicts for its values.

    Args:
        name: Name of the group.
        node: Its content, checked by :func:`check_group`.
        given: Further arguments by name, for each of its objects.

    Returns:
        The object; for a group of several, a dict of them by name; None for an empty optional group of one.

    Raises:
        UserError: If a constructor of this project, torch or Lightning rejects its arguments, or the object is of
            another kind.
    """
    group = GROUPS[name]
    built = {path: build(path, part, group.kind, given) for path, part in _parts(name, node or {})}
    if group.several:
        return {path.removeprefix(f"{name}."): value for path, value in built.items()}
    return built.get(name)


def try_out(optimizer: Callable[..., Optimizer], scheduler: Callable[..., LRScheduler] | None) -> None:
    """Make one step of optimizer and scheduler on a single number, to find values they reject before data is read.

    Args:
        optimizer: Called with the parameters.
        scheduler: Called with the optimizer.

    Raises:
        UserError: If one of them fails.
    """
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    with _one_line("optimizer"):
        made = optimizer([parameter])
        made.step(lambda: 0.0)
    if scheduler is not None:
        with _one_line("scheduler"):
            schedule = build_scheduler(made, scheduler, lambda: 100)
            made.step(lambda: 0.0)  # torch warns of a schedule that is stepped first
            schedule.step()


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of torch, or of the user's own class
        raise UserError(f"{name}: {reason(error)}") from error


def _parts(name: str, node: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List path and content of each object of a group; those of a group of several that are null are left out."""
    if not GROUPS[name].several:
        return [(name, node)] if node else []
    return [(f"{name}.{key}", part) for key, part in node.items() if part is not None]
