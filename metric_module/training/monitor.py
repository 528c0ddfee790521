"""The figure that selects the best checkpoint: its default, its direction, and a check before the first step."""

from __future__ import annotations

import re

from lightning.pytorch import LightningModule, Trainer
from omegaconf import DictConfig
from torch import Tensor

from metric_module.config.monitor import is_error
from metric_module.config.plain import references
from metric_module.errors import UserError
from metric_module.evaluation import EmbeddingMetric

_STAGE = "val/"
_OUR_CODE = ("metric_module.", "lightning.")
_NOT_OF_A_VALIDATION = re.compile(r"epoch|step|(train/|lr-).*")


def resolve_monitor(cfg: DictConfig, metric: EmbeddingMetric) -> None:
    """Replace ``monitor: null`` by the main figure of the evaluation, and ``mode: auto`` of callbacks by a direction.

    ``monitor`` stays null if no metric names a main figure.

    Args:
        cfg: The resolved configuration; ``monitor`` is changed, and what referred to it.
        metric: The metric of ``cfg.evaluation``.
    """
    linked = references(cfg)
    if cfg.monitor is None and metric.main_figure is not None:
        cfg.monitor = f"{_STAGE}{metric.main_figure}"
    for name, node in cfg.callbacks.items():
        if f"callbacks.{name}.monitor" in linked:
            node.monitor = cfg.monitor
        if node is not None and node.get("mode") == "auto":
            followed = node.get("monitor")
            node.mode = "min" if followed is not None and lower_is_better(str(followed), metric) else "max"


def lower_is_better(monitor: str, metric: EmbeddingMetric) -> bool:
    """Return whether a logged figure is better when it is lower.

    Args:
        monitor: Its name, such as ``val/eer``.
        metric: The metric whose figures are logged under ``val/``.
    """
    own = monitor.startswith(_STAGE) and monitor != f"{_STAGE}loss"
    return metric.lower_is_better(monitor.removeprefix(_STAGE)) if own else is_error(monitor)


def check_has_monitor(cfg: DictConfig) -> None:
    """Reject a training whose callbacks have no figure to follow.

    Args:
        cfg: The composed configuration, after :func:`resolve_monitor`.

    Raises:
        UserError: If ``monitor`` is null and a callback follows it.
    """
    if cfg.monitor is None and any(
        "monitor" in node and node.monitor is None for node in filter(None, cfg.callbacks.values())
    ):
        raise UserError(
            f"monitor: expected a figure, since none of {', '.join(cfg.evaluation)} names its main figure; give "
            f"monitor={_STAGE}<figure>"
        )


def check_monitors(module: LightningModule, trainer: Trainer, metric: EmbeddingMetric, folds: Tensor | None) -> None:
    """Reject a callback that follows a figure which no validation will log.

    Figures of a metric that does not name them, and those that a callback or module of the user's own may log, are
    only known once they are logged.

    Args:
        module: The module.
        trainer: Its trainer, before the first step.
        metric: The metric of the validation.
        folds: Fold of each listed pair; None without folds.

    Raises:
        UserError: If there is such a callback.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    names = metric.figure_names(None if folds is None else len(set(folds.tolist())))
    if names is None or not all(type(one).__module__.startswith(_OUR_CODE) for one in (module, *callbacks)):
        return
    figures = [f"{_STAGE}{name}" for name in (*(["loss"] if metric.sought is None else []), *names)]
    for monitor in (getattr(callback, "monitor", None) for callback in callbacks):
        if not isinstance(monitor, str) or _NOT_OF_A_VALIDATION.fullmatch(monitor):
            continue
        if re.sub(r"/dataloader_idx_\d+$", "", monitor) not in figures:
            raise UserError(f"monitor: expected one of {', '.join(figures)}, got {monitor}")
