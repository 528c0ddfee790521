"""Check, before the first step, which figures the data allows."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from metric_module.datamodule_facts import DataModuleFacts
from metric_module.errors import UserError
from metric_module.evaluation.metrics.base import EmbeddingMetric
from metric_module.evaluation.preflight import Labelled, Missing


class CheckFigures(Callback):
    """Name the figures that val and test cannot have, once, before the first step or the first evaluation.

    Args:
        monitor: The monitored figure, ``val/map_at_r``: training is refused if val cannot have it.
        test: Whether test will be measured.
    """

    def __init__(self, monitor: str, test: bool = True) -> None:
        self.monitor = monitor
        self.stages = ("val", "test") if test else ("val",)
        self._checked = False

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the sets once their labels are known.

        Raises:
            UserError: Before training, if val cannot have the monitored figure.
        """
        if self._checked or stage == "predict" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._checked = True
        metric, facts = getattr(pl_module, "metric", None), DataModuleFacts.of(trainer)
        if not isinstance(metric, EmbeddingMetric) or facts.sought is not None:
            return
        for split in self.stages:
            data = labelled(facts, split)
            missing = [] if data is None else metric.missing(data)
            for found in missing:
                self._tell(found, split, training=stage == "fit")

    def _tell(self, found: Missing, split: str, training: bool) -> None:
        """Warn of figures that are left out, or refuse to train without the monitored one."""
        monitored, _, figure = self.monitor.partition("/")
        if training and split == monitored == "val" and found.names(figure):
            raise UserError(f"monitor={self.monitor}: {split} cannot have this figure: {found.reason}")
        names = ", ".join(found.figures)
        rank_zero_warn(f"data: {split} cannot have the figures {names}, which are left out: {found.reason}")


def labelled(facts: DataModuleFacts, split: str) -> Labelled | None:
    """Collect what a data module says about a split; None if it does not say which samples and labels it has.

    Args:
        facts: The data module.
        split: ``val`` or ``test``.
    """
    labels, ids = facts.labels, (facts.splits or {}).get(split)
    if labels is None or ids is None:
        return None
    groups, queries = (None if fact is None else fact[ids] for fact in (facts.groups, facts.queries))
    return Labelled(labels[ids], ids, groups, queries, facts.pairs, facts.pair_folds)
