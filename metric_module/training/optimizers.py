"""Construction of optimizer and schedule, with learning rates by submodule."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from metric_module.errors import UserError, did_you_mean

OptimizerFactory = Callable[[Any], Optimizer]
"""Called with the parameters, or with groups of parameters (dicts) if submodules have their own learning rates."""

REST = "rest"

CHANGEABLE = ("lr", "betas", "dampening", "eps", "momentum", "nesterov", "weight_decay")
"""Options of an optimizer that may change when training is resumed."""

_CONFIGURED = "configured"
"""Key of each group of parameters with the options as configured; schedules and callbacks change the options."""


def configured(
    module: LightningModule,
    optimizer: OptimizerFactory,
    scheduler: Callable[..., LRScheduler] | None,
    lr_scale: Mapping[str, float],
) -> OptimizerLRScheduler:
    """Build an optimizer, and a schedule that is stepped after every batch, for ``configure_optimizers``.

    Args:
        module: Module whose parameters are trained, attached to its trainer.
        optimizer: Makes the optimizer from parameters or groups; see :func:`build_optimizer`.
        scheduler: Makes the schedule from the optimizer; see :func:`build_scheduler`. None: no schedule.
        lr_scale: Factor by submodule name; see :func:`parameter_groups`.

    Returns:
        The optimizer, or Lightning's dict of optimizer and schedule.

    Raises:
        UserError: If the schedule needs the number of steps, and the trainer allows none, or the optimizer's ``eps``
            is 0 in the type of the parameters.
    """
    made = build_optimizer(module, optimizer, lr_scale)
    _check_epsilon(made)
    if scheduler is None:
        return made
    schedule = build_scheduler(made, scheduler, partial(_total_steps, module.trainer))
    return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _check_epsilon(optimizer: Optimizer) -> None:
    """Reject an ``eps`` that rounds to 0 in float16: a weight without gradient would become NaN in the first step."""
    for group in optimizer.param_groups:
        eps = group.get("eps")
        for kind in {parameter.dtype for parameter in group["params"]}:
            if eps and torch.tensor(eps, dtype=kind) == 0:
                raise UserError(
                    f"optimizer.eps: {eps:g} of {type(optimizer).__name__} is 0 in {str(kind).removeprefix('torch.')}, "
                    "so that weights would become NaN; give +optimizer.eps=1e-4, or trainer.precision=bf16-true, "
                    "bf16-mixed or 16-mixed"
                )


def _total_steps(trainer: Trainer) -> int:
    """Number of optimizer steps of the whole training.

    Raises:
        UserError: If the trainer allows no step at all, or its length is unknown.
    """
    for name in ("max_steps", "max_epochs"):
        if getattr(trainer, name) == 0:
            raise UserError(f"trainer.{name}: expected an integer >= 1, or -1 for no limit, got 0")
    steps = trainer.estimated_stepping_batches
    if not 0 <= steps < math.inf:  # a loader without a length, or training without end
        raise UserError(
            "trainer.max_steps: the schedule needs the number of steps, and neither the training loader nor the "
            "trainer limits it; give trainer.max_steps=1000, say, or scheduler=constant"
        )
    return int(steps)


def parameter_groups(module: nn.Module, lr_scale: Mapping[str, float]) -> list[dict[str, Any]]:
    """Group parameters by the factor on their learning rate.

    Args:
        module: Module whose parameters are grouped.
        lr_scale: Factor by the name of a submodule or parameter; the longest name that a parameter starts with counts.

    Returns:
        Non-empty groups with ``params``, ``name`` and ``lr_scale``: one for each name, in the order of the names, and
        ``rest`` with factor 1 for the other parameters.

    Raises:
        UserError: If a factor is not positive, or a name belongs to no submodule with parameters.

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
    """Accept positive factors on the learning rates of submodules or parameters.

    Raises:
        UserError: If a factor is not a positive number, or a name belongs to no submodule with parameters.
    """
    if not isinstance(lr_scale, Mapping):
        raise UserError(f"module.lr_scale: expected factors by name, {{encoder.backbone: 0.1}}, got {lr_scale!r}")
    for name, factor in lr_scale.items():
        if not isinstance(factor, int | float) or isinstance(factor, bool) or not 0 < factor < math.inf:
            raise UserError(
                f"module.lr_scale: expected a finite factor > 0 for {name!r}, got {factor!r}; to keep it unchanged, "
                "freeze it (encoder.frozen, or callbacks=[default,freeze_backbone])"
            )
    names = _names(module)
    for name in lr_scale:
        if name not in names:
            raise UserError(f"module.lr_scale: no submodule {name!r} with parameters; {_near(str(name), names)}")


def build_optimizer(module: nn.Module, factory: OptimizerFactory, lr_scale: Mapping[str, float]) -> Optimizer:
    """Build an optimizer over every parameter, in one group or in those of :func:`parameter_groups`.

    It rejects the state of an optimizer with other factors. When it loads a state, options that were configured
    differently then (:data:`CHANGEABLE`) have their new values.

    Args:
        module: Module whose parameters are optimized.
        factory: Makes the optimizer from parameters or groups.
        lr_scale: Factors on the factory's learning rate, by submodule name; empty for one group.

    Raises:
        UserError: If the optimizer does not accept groups; later, if it loads a state with other factors, or one
            whose schedule sets an option that was changed.
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
    for group in optimizer.param_groups:
        group[_CONFIGURED] = {name: group[name] for name in CHANGEABLE if name in group}
    optimizer.register_load_state_dict_pre_hook(partial(_reject_other_groups, _scales(optimizer.param_groups)))
    optimizer.register_load_state_dict_pre_hook(_with_changes)
    return optimizer


def build_scheduler(
    optimizer: Optimizer, factory: Callable[..., LRScheduler], total_steps: Callable[[], int]
) -> LRScheduler:
    """Build a schedule that keeps the ratios between the groups of :func:`build_optimizer`.

    Args:
        optimizer: Optimizer whose learning rates change.
        factory: Called with the optimizer, with ``total_steps`` if it accepts that, and, if it has one ``max_lr`` for
            all groups as ``OneCycleLR`` does, with a ``max_lr`` for each group.
        total_steps: Returns the number of steps of training; called only if needed.

    Raises:
        UserError: If the schedule sets the learning rates of the groups without regard to their factors.
    """
    accepted = inspect.signature(factory).parameters
    given: dict[str, Any] = {"total_steps": total_steps()} if "total_steps" in accepted else {}
    scales = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]
    if "max_lr" in accepted and isinstance(accepted["max_lr"].default, int | float) and set(scales) != {1.0}:
        given["max_lr"] = [accepted["max_lr"].default * scale for scale in scales]
    scheduler = factory(optimizer, **given)
    bases = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
    units = [base / scale for base, scale in zip(bases, scales, strict=True)]
    if set(scales) != {1.0} and not math.isclose(min(units), max(units), rel_tol=1e-6):
        raise UserError(
            f"module.lr_scale: {type(scheduler).__name__} sets the learning rates of the groups by itself, to {bases} "
            f"where the factors are {scales}; give it one for each group, or take another scheduler"
        )
    return scheduler


def _with_changes(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Change the options in a state that were configured differently when it was saved."""
    pairs = zip(state["param_groups"], optimizer.param_groups, strict=False)  # torch rejects other numbers of groups
    return {**state, "param_groups": [_changed(saved, own[_CONFIGURED]) for saved, own in pairs]}


def _changed(saved: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return a saved group with new options; the learning rate keeps its ratio to the configured one.

    Raises:
        UserError: If the schedule sets an option that was changed (``OneCycleLR``, ``CyclicLR``).
    """
    unscheduled = {**saved, "lr": saved.get("initial_lr", saved["lr"])}
    before = saved.get(_CONFIGURED) or {name: unscheduled[name] for name in options if name in saved}
    new = {name: value for name, value in options.items() if name in before and not _same(value, before[name])}
    for name in new:
        if ("max_lr" if name == "lr" else "max_momentum") in saved and name in {"lr", "betas", "momentum"}:
            raise UserError(
                f"optimizer.{name}: the schedule of the checkpoint sets it by itself; resume with {before[name]}"
            )
    changed = {**saved, **new, _CONFIGURED: options}
    if "lr" in new:
        changed["lr"] = saved["lr"] * (new["lr"] / before["lr"]) if before["lr"] else new["lr"]
        changed["initial_lr"] = new["lr"]
    return changed


def _same(value: Any, other: Any) -> bool:
    """Compare options; a checkpoint may have a tuple where the yaml has a list."""
    return bool(list(value) == list(other) if isinstance(value, list | tuple) else value == other)


def follow_optimizer(scheduler: Any) -> None:
    """Let a restored schedule continue from the learning rates of its optimizer, which may have changed.

    Args:
        scheduler: A schedule of torch; schedules inside it (``SequentialLR``) follow too.
    """
    for inner in getattr(scheduler, "_schedulers", ()):
        follow_optimizer(inner)
    groups = scheduler.optimizer.param_groups
    rates = [group.get("initial_lr", group["lr"]) for group in groups]
    if hasattr(scheduler, "base_lrs") and scheduler.base_lrs != rates:
        scheduler.base_lrs = rates
        scheduler._last_lr = [group["lr"] for group in groups]


def check_length(schedules: Iterable[Mapping[str, Any]], trainer: Trainer) -> None:
    """Reject the state of a learning-rate schedule that was made for another number of steps.

    Args:
        schedules: States of the schedules in a checkpoint; only those with ``total_steps`` (``OneCycleLR``) can differ.
        trainer: Trainer of the resumed training.

    Raises:
        UserError: If ``total_steps`` differs from the steps of this training: the schedule would run out of steps.
    """
    for state in schedules:
        kept = state.get("total_steps")
        if kept is not None and kept != (steps := _total_steps(trainer)):
            raise UserError(
                f"scheduler: the checkpoint's schedule has {kept} steps, and this training has {steps}; "
                "resume with the same trainer.max_epochs and max_steps; with scheduler=cosine both may change"
            )


def _names(module: nn.Module) -> list[str]:
    """Names of all parameters, and of all submodules that have any."""
    found: dict[str, None] = {}
    for name, _ in module.named_parameters():
        words = name.split(".")
        found |= dict.fromkeys(".".join(words[:end]) for end in range(1, len(words) + 1))
    return list(found)


def _near(name: str, names: Iterable[str]) -> str:
    """Describe the closest names, and the members of the longest existing prefix."""
    parent = name
    while parent and parent not in names:
        parent = parent.rpartition(".")[0]
    inside = [part for part in names if part.rpartition(".")[0] == parent]
    where = f"{parent} has" if parent else "the module has"
    shown = ", ".join(part.rpartition(".")[2] for part in inside[:12]) + (", ..." if len(inside) > 12 else "")
    return f"{did_you_mean(name, list(names), most=3)}{where} {shown or 'no submodules'}"


def _scales(groups: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Factors of the groups by name; groups without a factor are left out."""
    return {group["name"]: group["lr_scale"] for group in groups if "lr_scale" in group}


def _reject_other_groups(expected: dict[str, float], optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Reject the state of an optimizer with other factors: its groups would be assigned to other parameters.

    Raises:
        UserError: If the factors differ.
    """
    found = _scales(state["param_groups"])
    if found != expected:
        raise UserError(
            f"module.lr_scale: the checkpoint's optimizer was made with {_shown(found)}, this one with "
            f"{_shown(expected)}; resume with the same factors, or start from its encoder with module.encoder_weights"
        )


def _shown(scales: dict[str, float]) -> str:
    return "{" + ", ".join(f"{name}: {scale:g}" for name, scale in scales.items() if name != REST) + "}"
