"""Callback that measures the validation set before training: figures of the encoder and of its inputs.

Shapes: N = samples of all processes, D = embedding size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from typing_extensions import override

from metric_module.distances import Distance, Euclidean
from metric_module.distributed import world_size
from metric_module.errors import NotComputableError
from metric_module.evaluation import EmbeddingMetric, Gathered
from metric_module.evaluation.raw_inputs import RawInputs
from metric_module.evaluation.separation import Separation, separation
from metric_module.module import TripletModule
from metric_module.report.samples.neighbours import whole_classes
from metric_module.sample_ids import flat_loaders, is_shuffled

MARGINS = 26
"""Number of margins to measure at: from 0 to 2.5 times the criterion's margin, which has index 10."""


class BeforeTraining(Callback):
    """Figures and class separation of the validation set before the first step.

    Lightning's sanity check is extended to the whole validation set, and its figures are kept: those of the encoder
    with its initial weights, and those of the inputs themselves, see
    :class:`metric_module.evaluation.raw_inputs.RawInputs`. Each :class:`ModelCheckpoint` that follows one of these
    figures saves step 0, as a first candidate for the best checkpoint.

    The separation of some samples is measured then, and again by a validation after training (``trainer.validate``).
    The samples are the first whole classes of the first loader; there are none in data with relations instead of
    classes, or with a shuffled loader.

    Training does not change: Lightning restores modes and random number generators. A training that resumes keeps what
    its checkpoint has.

    Args:
        samples: Largest number of samples for the separation.

    Attributes:
        figures: Figures by name before training, as ``recall_at_1``; empty if they were not measured.
        raw: Figures of the inputs themselves; empty if they were not measured.
        raw_absent: Why :attr:`raw` is empty; None if it is not.
        ids: Ids of the samples of the separation, int64 ``(N,)``; None if it was not measured.
        before: Their separation before training.
        after: Their separation in the last validation after training.
    """

    def __init__(self, samples: int = 2000) -> None:
        self.samples = samples
        self.figures: dict[str, float] = {}
        self.raw: dict[str, float] = {}
        self.raw_absent: str | None = None
        self.ids: Tensor | None = None
        self.before: Separation | None = None
        self.after: Separation | None = None
        self._measures = False
        self._inputs: RawInputs | None = None

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return everything that was measured before training."""
        before = None if self.before is None else self.before._asdict()
        figures = {"figures": self.figures, "raw": self.raw, "raw_absent": self.raw_absent}
        return {"ids": self.ids, "before": before, **figures}

    @override
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the measurement; ignore what an older version measured in another form."""
        before = state_dict["before"]
        if before is not None and before.keys() == set(Separation._fields):
            self.ids, self.before = state_dict["ids"], Separation(**before)
        if "figures" in state_dict:
            self.figures, self.raw = dict(state_dict["figures"]), dict(state_dict["raw"])
            self.raw_absent = state_dict["raw_absent"]

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the sanity check of a training that starts read the whole validation set."""
        off = trainer.fast_dev_run or trainer.barebones  # type: ignore[attr-defined]
        starts = trainer.ckpt_path is None and not trainer.global_step
        self._measures = starts and not off and isinstance(pl_module, TripletModule)
        if self._measures:
            trainer.num_sanity_val_steps = math.inf

    @override
    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier measurement."""
        if not self._measures:
            return
        self.figures, self.raw, self.raw_absent, self._inputs = {}, {}, None, None
        self.ids = self.before = self.after = None

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the inputs of a batch."""
        if not self._measures or not trainer.sanity_checking:
            return
        assert isinstance(pl_module, TripletModule)
        count = len(pl_module.metric.ids[-1]) if pl_module.metric.ids else 0
        if self._inputs is None:
            batches = sum(trainer.num_sanity_val_batches)
            self._inputs = RawInputs(samples=int(min(batches, 1 << 40)) * count * world_size())
        self._inputs.add(batch[0], count)

    @override
    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the figures and measure inputs and separation."""
        if not self._measures:
            return
        assert isinstance(pl_module, TripletModule)
        found = trainer.callback_metrics.items()
        self.figures = {name.removeprefix("val/"): float(value) for name, value in found if name.startswith("val/")}
        try:
            self.raw = self._measure_inputs(trainer, pl_module.metric)
        except NotComputableError as reason:
            self.raw_absent = str(reason)
        self._inputs = None
        shuffled = any(is_shuffled(loader) for loader in flat_loaders(trainer.val_dataloaders))
        if pl_module.metric.sought is None and not shuffled:  # otherwise a later validation would read other samples
            gathered = pl_module.metric.gathered()
            rows = whole_classes(gathered.labels, self.samples)  # (N,)
            self.before = None if len(rows) > self.samples else self._separation(pl_module, gathered, rows)
            self.ids = None if self.before is None else gathered.ids[rows].cpu()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save step 0 as a candidate for the best checkpoint."""
        if not self._measures or trainer.global_step:
            return
        figures = {f"val/{name}": torch.tensor(value) for name, value in self.figures.items()}
        for saver in trainer.checkpoint_callbacks:
            if isinstance(saver, ModelCheckpoint) and saver.monitor in figures:
                saver._save_topk_checkpoint(trainer, figures | {"epoch": torch.tensor(0), "step": torch.tensor(0)})

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the separation of the same samples in a validation after training."""
        if trainer.state.fn != TrainerFn.VALIDATING or self.ids is None or not isinstance(pl_module, TripletModule):
            return
        validated = pl_module.metric.gathered()
        rows = torch.isin(validated.ids, self.ids.to(validated.ids.device)).nonzero()[:, 0]  # (N,)
        if len(rows) == len(self.ids):
            self.after = self._separation(pl_module, validated, rows)

    def _measure_inputs(self, trainer: Trainer, metric: EmbeddingMetric) -> dict[str, float]:
        """Compute the figures of the inputs themselves, for the samples that a metric holds."""
        if metric.sought is not None:
            raise NotComputableError("the data has relations between two kinds of inputs")
        if len(flat_loaders(trainer.val_dataloaders)) > 1:
            raise NotComputableError("there are several validation loaders")
        inputs = RawInputs(0) if self._inputs is None else self._inputs  # a process without a batch
        copy = metric.empty_copy(Euclidean())
        given = metric.gathered()
        optional = [field is not None for field in (given.groups, given.queries)]
        for number, rows in enumerate(inputs.embeddings(given.labels.device)):
            kept = [
                of[number] if used else None for of, used in zip((metric.groups, metric.queries), optional, strict=True)
            ]
            copy.update(rows, metric.labels[number], metric.ids[number], *kept)
        return {name: float(value) for name, value in copy.compute().items()}

    def _separation(self, module: TripletModule, samples: Gathered, rows: Tensor) -> Separation | None:
        criterion = module.criterion
        return measure_separation(samples.embeddings[rows], samples.labels[rows], criterion.margin, criterion.distance)


def margins_around(margin: float) -> list[float]:
    """Return 26 margins from 0 to 2.5 times this margin; from 0 to 1 if it is 0.

    Args:
        margin: In units of the distance.

    Example:
        >>> margins_around(0.2)[10]
        0.2
    """
    step = margin / 10 if margin > 0 else 0.04
    return [margin if margin > 0 and place == 10 else place * step for place in range(MARGINS)]


def measure_separation(embeddings: Tensor, labels: Tensor, margin: float, distance: Distance) -> Separation | None:
    """Compute the separation of samples at several margins; None without both positive and negative pairs.

    Args:
        embeddings: ``(N, D)``.
        labels: Class of each, int64 ``(N,)``.
        margin: The criterion's margin; see :func:`margins_around`.
        distance: The criterion's distance.

    Returns:
        The separation, on the CPU.
    """
    sizes = torch.unique(labels, return_counts=True)[1]
    if len(sizes) < 2 or int(sizes.max()) < 2:
        return None
    return separation(embeddings, labels, margins_around(margin), distance=distance)
