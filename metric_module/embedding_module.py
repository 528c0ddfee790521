"""A module that encodes, and logs figures of whole validation and test sets.

Shapes: B = samples of a batch, D = embedding size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from metric_module.batch import is_texts, unpack
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.distributed import gather_rows, row_counts, sum_over_ranks
from metric_module.encoders.base import Encoder, embed
from metric_module.errors import UserError
from metric_module.evaluation import EmbeddingMetric, Gathered
from metric_module.functional import nonfinite_rows
from metric_module.preprocessing import Preprocessing, from_json
from metric_module.storage.weights import for_training, for_use
from metric_module.training.monitor import check_monitors


class EmbeddingModule(LightningModule, ABC):
    """An encoder and a metric: evaluation and prediction, without training.

    Args:
        encoder: Maps inputs to embeddings ``(B, D)``.

    Attributes:
        metric: Collects embeddings and computes the figures; a subclass sets it.
        config: Plain values that every checkpoint keeps under ``config``; None keeps nothing.
        preprocessing: How one item becomes an encoder input; that of the data module in training. Checkpoints keep it.
        threshold: Distance up to which two samples count as the same: the best one on the last validation set, if its
            metric computes one. Checkpoints keep it, and the test applies it.
    """

    metric: EmbeddingMetric

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.config: dict[str, Any] | None = None
        self.preprocessing: Preprocessing | None = None
        self.threshold: float | None = None
        self._warned = False
        self._seen = 0
        self._bad: list[Tensor] = []

    @abstractmethod
    def loss_of_set(self, samples: Gathered) -> Tensor:
        """Compute the loss of the samples of all processes as one batch, ``()``."""

    @override
    def forward(self, inputs: Any) -> Tensor:
        """Embed a batch of inputs, ``(B, D)``."""
        self._warn_of_training_mode()
        embeddings: Tensor = self.encoder(inputs)
        return embeddings

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep :attr:`config`, :attr:`preprocessing` and :attr:`threshold` in the checkpoint."""
        if self.config is not None:
            checkpoint["config"] = self.config
        if self.preprocessing is not None:
            checkpoint["preprocessing"] = self.preprocessing.to_json()
        checkpoint["threshold"] = self.threshold

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take :attr:`threshold` and :attr:`preprocessing` from the checkpoint; without a trainer, prepare for use."""
        self.threshold = checkpoint.get("threshold")
        if "preprocessing" in checkpoint:
            self.preprocessing = from_json(checkpoint["preprocessing"])
        if self._trainer is None:  # load_from_checkpoint
            for_use(self)

    @override
    def on_fit_start(self) -> None:
        """Switch weights that were loaded for use back to training, and check metric and monitored figures."""
        for module in self.modules():
            for_training(module)
        found = DataModuleFacts.of(self.trainer).preprocessing
        if isinstance(found, Preprocessing):
            self.preprocessing = found
        if self.trainer.enable_validation:
            self._take_sought("val")
            check_monitors(self, self.trainer, self.metric, DataModuleFacts.of(self.trainer).pair_folds)

    @override
    def on_validation_epoch_start(self) -> None:
        """Reset the metric."""
        self._start_evaluation("val")

    @override
    def on_test_epoch_start(self) -> None:
        """Reset the metric."""
        self._start_evaluation("test")

    @override
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect the embeddings of one batch."""
        self._collect(batch)

    @override
    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect the embeddings of one batch."""
        self._collect(batch)

    @override
    def on_validation_epoch_end(self) -> None:
        """Log the figures of the whole validation set."""
        self._finish_evaluation("val")

    @override
    def on_test_epoch_end(self) -> None:
        """Log the figures of the whole test set."""
        self._finish_evaluation("test")

    @override
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Embed a batch, ``(B, D)``.

        Args:
            batch: A :class:`Batch`, ``(inputs, labels)``, or inputs alone.
            batch_idx: Number of the batch, for the message.
            dataloader_idx: Not used.

        Raises:
            UserError: If an embedding is NaN or infinite.
        """
        self._warn_of_training_mode()
        inputs = batch[0] if isinstance(batch, tuple | list) and not is_texts(batch) else batch
        embeddings = self._encode(inputs)
        bad = len(nonfinite_rows(embeddings))
        if bad:
            name = type(self.encoder).__name__
            raise UserError(f"{name}: NaN or infinity in {bad} of {len(embeddings)} embeddings of batch {batch_idx}")
        return embeddings

    def _warn_of_training_mode(self) -> None:
        """Warn, once, that embeddings depend on dropout and on the other samples of their batch."""
        if self.encoder.training and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"{type(self.encoder).__name__} embeds in training mode, so that dropout and BatchNorm change the "
                "embeddings; call module.eval() first"
            )

    def _encode(self, inputs: Any, labels: Tensor | None = None) -> Tensor:
        """Embed inputs, ``(B, D)``, and check that there is one embedding per label."""
        embeddings = self._embed(inputs)
        if labels is not None and len(labels) != len(embeddings):
            got = f"{len(embeddings)} for {len(labels)} labels"
            raise UserError(f"{type(self.encoder).__name__}: expected one embedding per label, got {got}")
        return embeddings

    def _refuse(self, bad: Tensor, seen: int, names: str = "sample ids") -> None:
        """Stop all processes if any of them has samples ``(n,)`` with NaN or infinity."""
        total, seen = sum_over_ranks(torch.tensor([len(bad), seen], device=bad.device)).tolist()
        if total:
            ids = gather_rows(bad, row_counts(bad))[:5].tolist()
            raise UserError(
                f"{type(self.encoder).__name__}: NaN or infinity in {total} of {seen} embeddings at step "
                f"{self.global_step}, {names} {ids}; look at these inputs, or lower the learning rate"
            )

    def _embed(self, inputs: Any) -> Tensor:
        """Embed inputs, ``(B, D)``."""
        return embed(self.encoder, inputs)

    def _start_evaluation(self, stage: str) -> None:
        self._take_sought(stage)
        self._seen = 0
        self._bad.clear()
        self.metric.reset()

    def _collect(self, batch: Any) -> None:
        inputs, labels, index = unpack(batch, self._seen)
        embeddings = self._encode(inputs, labels)  # (B, D)
        self._seen += len(labels)
        bad = nonfinite_rows(embeddings)
        if len(bad):  # processes may have different numbers of batches, so they stop together at the end
            self._bad.append(index.index_select(0, bad))
            return
        facts = DataModuleFacts.of(self.trainer)
        groups, queries = (
            None if fact is None else fact.to(index.device).index_select(0, index)  # (B,)
            for fact in (facts.groups, facts.queries)
        )
        self.metric.update(embeddings, labels, index, groups, queries)

    def _finish_evaluation(self, stage: str) -> None:
        """Log every figure; for data with classes also the loss of the whole set as one batch."""
        self._refuse(torch.cat([torch.zeros(0, dtype=torch.int64, device=self.device), *self._bad]), self._seen)
        samples = self.metric.gathered()
        self.metric.threshold = self.threshold if stage == "test" else None
        facts = DataModuleFacts.of(self.trainer)
        self.metric.pairs, self.metric.folds = facts.pairs, facts.pair_folds
        figures = self.metric.compute()
        if stage == "val" and "best_threshold" in figures:
            self.threshold = figures["best_threshold"]
        if self.metric.sought is None:
            self.log(f"{stage}/loss", self.loss_of_set(samples), prog_bar=True)
        for name, value in figures.items():
            shown = name in {"recall_at_1", "map_at_r", "ndcg_at_10"}
            self.log(f"{stage}/{name}", torch.tensor(value).float(), prog_bar=shown)

    def _take_sought(self, stage: str) -> None:
        """Hand the relations of a stage to the metric, if the data has any, and check that it can measure them."""
        sought = DataModuleFacts.of(self.trainer).sought
        self.metric.sought = None if sought is None else sought[stage]
        self.metric.check_sought()
