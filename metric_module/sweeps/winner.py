"""The winner of a sweep: the best setting among those that improved on their encoder before training."""

from __future__ import annotations

from collections.abc import Sequence

from metric_module.sweeps.ledger import Job
from metric_module.sweeps.objective import Objective
from metric_module.sweeps.settings import Setting

ADVICE = "try a pretrained encoder, a lower optimizer.lr or more classes"


def best(found: Sequence[Setting], objective: Objective) -> list[Setting]:
    """Return the settings with the best mean among those that learned: one, several that tie, or none.

    Args:
        found: The settings.
        objective: The figure and its direction.
    """
    sign = -1 if objective.lower else 1
    able = [setting for setting in found if learned(setting.jobs, objective.monitor)]
    means = [(setting, made.mean) for setting in able if (made := setting.estimate(objective.monitor)) is not None]
    top = max((sign * mean for _, mean in means), default=0.0)
    return [setting for setting, mean in means if sign * mean == top]


def learned(jobs: Sequence[Job], monitor: str) -> bool:
    """Return whether a job with the figure has a best checkpoint from after step 0, or does not say from when."""
    return any(job.best_step != 0 for job in jobs if monitor in job.figures)


def no_winner(jobs: Sequence[Job], objective: Objective) -> str:
    """Say in one line that no job improved on its encoder before training.

    Args:
        jobs: The jobs of a sweep.
        objective: The figure and its direction.

    Returns:
        The line; empty if a job improved, or if none has the figure yet.

    Example:
        >>> job = Job(0, "", (), "done", figures={"val/eer": 0.3, "val/best_step": 0.0})
        >>> no_winner([job], Objective("val/eer", True))
        'no job improved on its encoder before training: val/eer was never below its value at step 0 (at least 0.3...'
    """
    values = [job.figures[objective.monitor] for job in jobs if objective.monitor in job.figures]
    if not values or learned(jobs, objective.monitor):
        return ""
    way, top = ("below", f"at least {min(values):.4f}") if objective.lower else ("above", f"at most {max(values):.4f}")
    where = f"{objective.monitor} was never {way} its value at step 0 ({top})"
    return f"no job improved on its encoder before training: {where}; {ADVICE}"
