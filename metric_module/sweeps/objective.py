"""The figure that a sweep compares, and the direction in which a search sweeper follows it."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from metric_module.config.monitor import is_error
from metric_module.config.trust import leaves
from metric_module.errors import UserError


class Objective(NamedTuple):
    """A figure, empty if the evaluation names none, and whether it is better when it is lower."""

    monitor: str
    lower: bool


def objective_of(config: DictConfig) -> Objective:
    """Return the monitored figure of a sweep, and its direction, both from the metrics of its evaluation.

    Args:
        config: The configuration of the sweep, without its swept values.
    """
    from hydra.utils import instantiate  # imported late, with the metrics: torch takes its time

    from metric_module.config.arguments import check_arguments
    from metric_module.evaluation import MetricGroup
    from metric_module.training.monitor import lower_is_better

    monitor = config.monitor
    with suppress(Exception):  # each job explains what is wrong with its evaluation
        values: Any = OmegaConf.to_container(config.evaluation, resolve=True)
        check_arguments("evaluation", values)
        if any("${" in str(value) for *_, value in leaves("evaluation", values)):
            raise UserError("evaluation: expected plain values")  # it would be resolved again
        metric = MetricGroup([instantiate(node, _convert_="all") for node in values.values()])
        if monitor is None and metric.main_figure is not None:
            monitor = f"val/{metric.main_figure}"
        if monitor is not None:
            return Objective(monitor, lower_is_better(monitor, metric))
    return Objective(monitor or "", is_error(monitor or ""))


def direct(hydra: Any, objective: Objective) -> None:
    """Let a search sweeper follow the figure in its own direction; a direction that was typed stays.

    Knows the options of the sweepers for Optuna, Nevergrad and Ax. Any other sweeper but Hydra's own is told about.

    Args:
        hydra: Hydra's configuration of the sweep; the options of its sweeper are changed.
        objective: The figure and its direction.
    """
    sweeper, lower = hydra.sweeper, objective.lower
    wanted = {
        "direction": "minimize" if lower else "maximize",
        "optim.maximize": not lower,
        "ax_config.experiment.minimize": lower,
    }
    follows = f"{objective.monitor} is better when it is {'lower' if lower else 'higher'}"
    found = {key: OmegaConf.select(sweeper, key) for key in wanted}
    had = {key: value for key, value in found.items() if value is not None}
    if not had and not str(sweeper.get("_target_")).endswith(".BasicSweeper"):
        print(f"hydra.sweeper: {sweeper.get('_target_')} receives the figure as it is, and {follows}", file=sys.stderr)
    for key, value in had.items():
        if OmegaConf.is_config(value) or str(getattr(value, "name", value)) == str(wanted[key]):
            continue  # a list: one direction for each of several figures
        if _is_typed(hydra, f"hydra.sweeper.{key}"):
            print(f"hydra.sweeper.{key}={getattr(value, 'name', value)} was typed, but {follows}", file=sys.stderr)
            continue
        with read_write(hydra), open_dict(hydra):
            OmegaConf.update(sweeper, key, wanted[key])
        print(f"hydra.sweeper.{key}={wanted[key]}, because {follows}", file=sys.stderr)


def _is_typed(hydra: Any, key: str) -> bool:
    """Return whether the command line sets a key, or a mapping that has it."""
    typed = [word.lstrip("+~").partition("=")[0] for word in hydra.overrides.hydra]
    return any(f"{key}.".startswith(f"{word}.") for word in typed)
