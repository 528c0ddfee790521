"""Callback that measures how well classes are separated before and after training, on validation samples.

Shapes: B = samples of a batch, N = samples of all processes, W = number of processes, D = embedding size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from typing_extensions import override

from metric_module.batch import unpack
from metric_module.callbacks.random_state import random_state, set_random_state
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.distances import Distance
from metric_module.distributed import gather_batch, gather_rows, row_counts, world_size
from metric_module.encoders.base import embed
from metric_module.evaluation.separation import Separation, separation
from metric_module.module import TripletModule
from metric_module.sample_ids import SampleIds, flat_loaders, is_shuffled

MARGINS = 26
"""Number of margins to measure at: from 0 to 2.5 times the criterion's margin, which has index 10."""


class Embedded(NamedTuple):
    """Embeddings ``(N, D)``, with the class and the id of each, int64 ``(N,)``."""

    embeddings: Tensor
    labels: Tensor
    ids: Tensor


class BeforeTraining(Callback):
    """Class separation of some validation samples, measured with the initial weights and again after training.

    The samples are the first ones of the first validation loader, without a class that continues beyond the limit; none
    of a shuffled loader. They are embedded once before the first step. Their ids and their
    :class:`metric_module.evaluation.separation.Separation` are kept, also in checkpoints. A validation after training
    (``trainer.validate``) measures the same samples again. Training does not change: modes and random number generators
    are restored, and nothing is logged. Nothing is measured if the data module has relations instead of classes, or if
    training resumes from a checkpoint without a measurement.

    Args:
        samples: Largest number of samples, over all processes together.

    Attributes:
        ids: Ids of the samples, int64 ``(N,)``; None if nothing was measured.
        before: Their separation before training.
        after: Their separation in the last validation after training.
    """

    def __init__(self, samples: int = 2000) -> None:
        self.samples = samples
        self.ids: Tensor | None = None
        self.before: Separation | None = None
        self.after: Separation | None = None

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return the ids of the samples, and their separation before training."""
        return {"ids": self.ids, "before": None if self.before is None else self.before._asdict()}

    @override
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the measurement; ignore one of an older version, which has other fields."""
        before = state_dict["before"]
        if before is not None and before.keys() == set(Separation._fields):
            self.ids, self.before = state_dict["ids"], Separation(**before)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the separation before the first step."""
        facts = DataModuleFacts.of(trainer)
        datamodule = facts.datamodule
        if trainer.global_step or datamodule is None or not isinstance(pl_module, TripletModule):
            return
        if facts.sought is not None:  # the data has relations instead of classes
            return
        with _aside(trainer, pl_module):
            loader, *_ = flat_loaders(datamodule.val_dataloader())
            if is_shuffled(loader):  # a later validation would read other samples
                return
            max_batches = _most_batches(trainer, loader)
            embedded = _embed(trainer, pl_module, loader, self.samples, max_batches)
        criterion = pl_module.criterion
        self.before = measure_separation(embedded.embeddings, embedded.labels, criterion.margin, criterion.distance)
        self.ids = None if self.before is None else embedded.ids

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the same samples again in a validation after training."""
        if trainer.state.fn != TrainerFn.VALIDATING or self.ids is None or not isinstance(pl_module, TripletModule):
            return
        validated = pl_module.metric.gathered()
        rows = torch.isin(validated.ids, self.ids.to(validated.ids.device)).nonzero()[:, 0]  # (N,)
        if len(rows) == len(self.ids):
            criterion = pl_module.criterion
            self.after = measure_separation(
                validated.embeddings[rows], validated.labels[rows], criterion.margin, criterion.distance
            )


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


@contextmanager
def _aside(trainer: Trainer, module: nn.Module) -> Iterator[None]:
    """Evaluate during training, without gradients; restore modes and random number generators on exit."""
    modes = {submodule: submodule.training for submodule in module.modules()}
    state = random_state()
    module.eval()
    trainer.validating = True
    try:
        with torch.no_grad():
            yield
    finally:
        trainer.training = True
        for submodule, mode in modes.items():
            submodule.training = mode
        set_random_state(state)


def _most_batches(trainer: Trainer, loader: Any) -> float:
    """Return the largest number of batches that a validation would read from the loader."""
    limit: int | float = trainer.limit_val_batches
    if isinstance(limit, int):
        return limit
    return math.inf if limit == 1.0 else int(limit * len(loader))


def _embed(trainer: Trainer, module: TripletModule, loader: Any, samples: int, max_batches: float) -> Embedded:
    """Embed the first samples of each process's loader, and gather those whose class does not continue after them."""
    limit = samples // world_size()
    numbered = SampleIds(loader, by_id=False)
    empty = torch.zeros(0, dtype=torch.int64, device=module.device)
    batches: list[Embedded] = []
    seen = 0
    for number, batch in enumerate(loader):
        if number >= max_batches or seen > limit:  # one sample beyond the limit shows whether the last class continues
            break
        converted = trainer.precision_plugin.convert_input(batch)
        inputs, labels, index = unpack(trainer.strategy.batch_to_device(converted, dataloader_idx=0))
        if len(batch) < 3:
            index = numbered.of_batch(number, len(labels)).to(labels.device)
        with trainer.precision_plugin.val_step_context():
            embeddings = embed(module.encoder, inputs).float()  # (B, D)
        if len(embeddings) != len(labels):
            break  # the first training step raises the error
        batches.append(Embedded(embeddings, labels, index))
        seen += len(labels)
    batches = batches or [Embedded(torch.zeros(0, module.encoder.embedding_dim, device=module.device), empty, empty)]
    own = Embedded(*(torch.cat(field) for field in zip(*batches, strict=True)))
    return _whole_classes(Embedded(*(field[:limit] for field in own)), own.labels[limit : limit + 1])


def _whole_classes(own: Embedded, following: Tensor) -> Embedded:
    """Gather the samples of all processes; drop repeated ids, NaN, and classes that continue after the samples.

    Args:
        own: Samples of this process.
        following: Class of the next sample of this process, int64 ``(1,)``; ``(0,)`` if the loader has no more.
    """
    embeddings, labels, ids, _ = gather_batch(*own)
    assert ids is not None  # this process passed ids
    incomplete = gather_rows(following, row_counts(following))  # (at most W,) classes
    kept = torch.isfinite(embeddings).all(dim=1) & ~torch.isin(labels, incomplete)  # one value for each gathered row
    rows = kept.nonzero()[:, 0]
    first_of_id = np.unique(ids[rows].cpu().numpy(), return_index=True)[1]
    rows = rows[torch.from_numpy(first_of_id).to(rows.device)]  # (N,)
    return Embedded(embeddings[rows], labels[rows], ids[rows])
