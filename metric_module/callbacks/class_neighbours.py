"""Callback that finds which classes are near each other, for batches of class neighbourhoods.

Shapes: C = classes, N = neighbours of a class, D = embedding size, B = samples in a batch, n = samples of this process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from typing_extensions import override

from metric_module.batch import unpack
from metric_module.callbacks.random_state import random_state, set_random_state
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.distances import Distance
from metric_module.distributed import gather_rows, row_counts, shard, sum_over_ranks
from metric_module.encoders.base import embed
from metric_module.errors import UserError
from metric_module.evaluation.exact.nearest import nearest
from metric_module.functional import nonfinite_rows
from metric_module.module import TripletModule

SPARE = 8
"""Neighbours kept for each place in a group: late in a round most of a class's neighbours have had their turn."""


class ClassNeighbours(Callback):
    """Nearest classes of every class, before training and then every so many optimizer steps.

    It does nothing unless the data module has ``neighbours``. A class centre is the mean embedding of at most
    ``samples_per_class`` training samples without augmentation, in evaluation mode; the distance is the criterion's.
    Modes and random number generators are restored. Each process embeds a share of the samples and finds the neighbours
    of a share of the classes, so that all have the same table. The data module keeps the tables in its state.

    Attributes:
        tables: Number of tables computed by this process.
        seconds: Time that took.
    """

    def __init__(self) -> None:
        self.tables = 0
        self.seconds = 0.0
        self._step = 0

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the first table, before workers draw the first batches; a resumed training has it already."""
        self.tables, self.seconds = 0, 0.0
        facts = DataModuleFacts.of(trainer)
        if facts.neighbours and not facts.neighbour_tables:
            self._refresh(trainer, pl_module, first_step=0)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the step at which training starts."""
        self._step = trainer.global_step

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        """Compute a table if one is due after this optimizer step."""
        stepped, self._step = trainer.global_step > self._step, trainer.global_step
        facts = DataModuleFacts.of(trainer)
        if stepped and facts.neighbours and self._step % facts.neighbours["every"] == 0:
            assert facts.next_neighbours_step is not None
            self._refresh(trainer, pl_module, facts.next_neighbours_step)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what the tables cost."""
        if self.tables:
            rank_zero_info(f"class neighbours: {self.tables} tables in {self.seconds:.1f} s")

    def _refresh(self, trainer: Trainer, module: LightningModule, first_step: int) -> None:
        """Compute a table and hand it to the data module."""
        facts = DataModuleFacts.of(trainer)
        if not isinstance(module, TripletModule) or facts.neighbours is None or facts.set_neighbours is None:
            return
        start = time.perf_counter()
        with _evaluating(trainer, module):
            centres = class_centres(trainer, module, trainer.global_step)
            count = SPARE * (facts.neighbours["group"] - 1)
            table = nearest_classes(centres, count, module.criterion.distance)
        facts.set_neighbours(table, first_step)
        self.tables, self.seconds = self.tables + 1, self.seconds + time.perf_counter() - start


@contextmanager
def _evaluating(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Evaluation mode for every module, as Lightning has it in a validation; the state before is restored."""
    modes = {part: part.training for part in module.modules()}
    stage, before = trainer.state.stage, random_state()  # an encoder may draw
    try:
        module.eval()
        trainer.state.stage = RunningStage.VALIDATING  # a data module augments in training only
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            yield
    finally:
        trainer.state.stage = stage
        set_random_state(before)
        for part, training in modes.items():
            part.training = training


def class_centres(trainer: Trainer, module: TripletModule, number: int) -> Tensor:
    """Compute the mean embedding of some training samples of each class; every process must call it.

    Args:
        trainer: The trainer, with a data module of classes.
        module: Has the encoder.
        number: Another number chooses other samples.

    Returns:
        Float32 ``(C, D)`` on the device of the module, class by class in order of the labels; equal on all processes.

    Raises:
        UserError: An embedding is NaN or infinite.
    """
    choose = DataModuleFacts.of(trainer).centre_samples
    assert choose is not None
    (classes, loader), (rank, processes) = choose(number), shard()
    own = classes[rank::processes].to(module.device)  # (n,)
    total, seen = torch.zeros(0), 0
    for batch in loader:
        inputs = unpack(trainer.strategy.batch_to_device(batch)).inputs
        embeddings = embed(module.encoder, inputs).float()  # (B, D)
        if not seen:
            total = embeddings.new_zeros(int(classes.max()) + 1, embeddings.shape[1])  # (C, D)
        rows = own[seen : seen + len(embeddings)]
        total.index_add_(0, rows, embeddings[: len(rows)])  # a process's last sample may be one that another has
        seen += len(embeddings)
    centres = sum_over_ranks(total) / classes.bincount().to(total)[:, None]  # (C, D)
    bad = len(nonfinite_rows(centres))
    if bad:
        name = type(module.encoder).__name__
        raise UserError(
            f"{name}: NaN or infinity in the embeddings of {bad} of {len(centres)} training classes at step "
            f"{trainer.global_step}; look at their inputs, or lower the learning rate"
        )
    return centres


def nearest_classes(centres: Tensor, count: int, distance: Distance | None = None) -> Tensor:
    """Find the nearest other classes of each class, exactly; every process must call it, and gets the same table.

    Args:
        centres: Centre of each class ``(C, D)``, equal on all processes.
        count: Number of neighbours; N is C - 1 if there are fewer other classes.
        distance: The distance; None is Euclidean.

    Returns:
        Numbers of the classes, nearest first, int32 ``(C, N)`` on the CPU.

    Example:
        >>> nearest_classes(torch.tensor([[0.0], [5.0], [4.0]]), 1).tolist()
        [[2], [2], [1]]
    """
    rank, processes = shard()
    own = torch.arange(len(centres), device=centres.device).tensor_split(processes)[rank]  # (n,)
    found = nearest(centres[own], centres, min(count, len(centres) - 1), distance, exclude=own).positions  # (n, N)
    return gather_rows(found, row_counts(found)).int().cpu()
