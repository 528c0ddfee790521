"""From the choice of an optimizer and a schedule to the ones that train a module, with learning rates by part of it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from metric_module.errors import UserError, did_you_mean

OptimizerFactory = Callable[[Any], Optimizer]
"""Called with the parameters, or with groups of them, dicts, where parts have learning rates of their own."""

REST = "rest"


def configured(
    module: LightningModule,
    optimizer: OptimizerFactory,
    scheduler: Callable[..., LRScheduler] | None,
    lr_scale: Mapping[str, float],
) -> OptimizerLRScheduler:
    """What ``configure_optimizers`` returns: an optimizer, and a schedule that is stepped after every batch.

    Args:
        module: Whose parameters, attached to its trainer.
        optimizer: As in :func:`build_optimizer`.
        scheduler: As in :func:`build_scheduler`; None is none.
        lr_scale: As in :func:`parameter_groups`.

    Raises:
        UserError: If a schedule asks for its length, and training has none.
    """
    made = build_optimizer(module, optimizer, lr_scale)
    if scheduler is None:
        return made
    schedule = build_scheduler(made, scheduler, partial(_total_steps, module.trainer))
    return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _total_steps(trainer: Trainer) -> int:
    """How many steps training has.

    Raises:
        UserError: If the trainer allows none, of which no schedule can be made.
    """
    for name in ("max_steps", "max_epochs"):
        if getattr(trainer, name) == 0:
            raise UserError(f"trainer.{name}: expected an integer >= 1, or -1 for no limit, got 0")
    return int(trainer.estimated_stepping_batches)


def parameter_groups(module: nn.Module, lr_scale: Mapping[str, float]) -> list[dict[str, Any]]:
    """Parameters by the factor on their learning rate.

    Args:
        module: Whose parameters.
        lr_scale: Factor by the name of a part of the module; the longest name that a parameter starts with wins.

    Returns:
        A group for each name that has parameters left, with ``params``, ``name`` and ``lr_scale``, in the order of the
        names, and ``rest`` with factor 1 for the others.

    Raises:
        UserError: If a factor is not positive, or a name is no part with parameters.

    Example:
        >>> module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> [(group["name"], len(group["params"])) for group in parameter_groups(module, {"1.bias": 2, "0": 0.1})]
        [('1.bias', 1), ('0', 2), ('rest', 1)]
    """
    check_lr_scale(module, lr_scale)
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in (*lr_scale, REST)}
    for name, parameter in module.named_parameters():
        fitting = [prefix for prefix in lr_scale if f"{name}.".startswith(f"{prefix}.")]
        groups[max(fitting, key=len, default=REST)].append(parameter)
    return [
        {"params": parameters, "name": name, "lr_scale": float(lr_scale.get(name, 1))}
        for name, parameters in groups.items()
        if parameters
    ]


def check_lr_scale(module: nn.Module, lr_scale: Mapping[str, float]) -> None:
    """Accept factors above 0 on the learning rates of parts of a module.

    Raises:
        UserError: If a factor is anything else, or a name is no part with parameters.
    """
    if not isinstance(lr_scale, Mapping):
        raise UserError(f"module.lr_scale: expected factors by part, {{encoder.backbone: 0.1}}, got {lr_scale!r}")
    for name, factor in lr_scale.items():
        if not isinstance(factor, int | float) or isinstance(factor, bool) or not 0 < factor < math.inf:
            raise UserError(
                f"module.lr_scale: expected a finite factor > 0 for {name!r}, got {factor!r}; to keep a part as it is, "
                "freeze it (encoder.frozen, or callbacks=[default,freeze_backbone])"
            )
    known = _parts(module)
    for name in lr_scale:
        if name not in known:
            raise UserError(f"module.lr_scale: no part {name!r} with parameters; {_near(str(name), known)}")


def build_optimizer(module: nn.Module, factory: OptimizerFactory, lr_scale: Mapping[str, float]) -> Optimizer:
    """An optimizer over every parameter, in one group, or in those of :func:`parameter_groups`.

    It takes no state of an optimizer that was made with other factors.

    Args:
        module: Whose parameters.
        factory: Makes the optimizer.
        lr_scale: Factors on the learning rate that the factory gives; empty for one group.

    Raises:
        UserError: If the optimizer does not take groups; when it loads a state that has others.
    """
    if not lr_scale:
        optimizer = factory(module.parameters())
    else:
        groups = parameter_groups(module, lr_scale)
        try:
            optimizer = factory(groups)
        except (ValueError, TypeError) as error:
            raise UserError(f"module.lr_scale: the optimizer takes no groups of parameters ({error})") from error
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * group["lr_scale"]
    optimizer.register_load_state_dict_pre_hook(partial(_refuse_other_groups, _scales(optimizer.param_groups)))
    return optimizer


def build_scheduler(
    optimizer: Optimizer, factory: Callable[..., LRScheduler], total_steps: Callable[[], int]
) -> LRScheduler:
    """A schedule that keeps the ratios of the groups of :func:`build_optimizer`.

    Args:
        optimizer: Whose learning rates it changes.
        factory: Called with the optimizer, with ``total_steps`` if it takes that, and with a ``max_lr`` for each group
            if it has one for all, as ``OneCycleLR``.
        total_steps: How many steps training has; asked only if need be.

    Raises:
        UserError: If it sets the learning rates of the groups without regard to their factors.
    """
    known = inspect.signature(factory).parameters
    given: dict[str, Any] = {"total_steps": total_steps()} if "total_steps" in known else {}
    scales = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]
    if "max_lr" in known and isinstance(known["max_lr"].default, int | float) and set(scales) != {1.0}:
        given["max_lr"] = [known["max_lr"].default * scale for scale in scales]
    scheduler = factory(optimizer, **given)
    bases = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
    units = [base / scale for base, scale in zip(bases, scales, strict=True)]
    if set(scales) != {1.0} and not math.isclose(min(units), max(units), rel_tol=1e-6):
        raise UserError(
            f"module.lr_scale: {type(scheduler).__name__} sets the learning rates of the groups by itself, to {bases} "
            f"where the factors are {scales}; give it one for each group, or take another scheduler"
        )
    return scheduler


def check_length(schedules: Iterable[Mapping[str, Any]], trainer: Trainer) -> None:
    """Accept the states of schedules that were made for a training of this length, or that do not keep its length.

    Args:
        schedules: The states, as checkpoints keep them.
        trainer: Asked how many steps training has, if need be.

    Raises:
        UserError: If one was made for another length, as ``OneCycleLR``, whose steps would then run out.
    """
    for state in schedules:
        kept = state.get("total_steps")
        if kept is not None and kept != (steps := _total_steps(trainer)):
            raise UserError(
                f"scheduler: the checkpoint's schedule is one of {kept} steps, and this training has {steps}; "
                "go on with the same trainer.max_epochs and max_steps; of scheduler=cosine both may change"
            )


def _parts(module: nn.Module) -> list[str]:
    """Every part that has parameters, parameters included, by name."""
    found: dict[str, None] = {}
    for name, _ in module.named_parameters():
        words = name.split(".")
        found |= dict.fromkeys(".".join(words[:end]) for end in range(1, len(words) + 1))
    return list(found)


def _near(name: str, known: Iterable[str]) -> str:
    """The names most like it, and the parts of the last part in it that there is."""
    parent = name
    while parent and parent not in known:
        parent = parent.rpartition(".")[0]
    inside = [part for part in known if part.rpartition(".")[0] == parent]
    where = f"{parent} has" if parent else "the module has"
    shown = ", ".join(part.rpartition(".")[2] for part in inside[:12]) + (", ..." if len(inside) > 12 else "")
    return f"{did_you_mean(name, list(known), most=3)}{where} {shown or 'no parts'}"


def _scales(groups: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The factors of groups by name; of groups without, none."""
    return {group["name"]: group["lr_scale"] for group in groups if "lr_scale" in group}


def _refuse_other_groups(expected: dict[str, float], optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Accept the state of an optimizer with the same factors: others would be lost, or mistake one group for another.

    Raises:
        UserError: If they differ.
    """
    found = _scales(state["param_groups"])
    if found != expected:
        raise UserError(
            f"module.lr_scale: the checkpoint's optimizer was made with {_told(found)}, this one with "
            f"{_told(expected)}; go on with the same, or start anew from its encoder with module.encoder_weights"
        )


def _told(scales: dict[str, float]) -> str:
    return "{" + ", ".join(f"{name}: {scale:g}" for name, scale in scales.items() if name != REST) + "}"
