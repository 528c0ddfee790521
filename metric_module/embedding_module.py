"""A module that encodes, and logs figures of whole validation and test sets.

Shapes: B = samples of a batch, D = embedding size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from metric_module.batch import is_texts, unpack
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.distributed import gather_rows, row_counts, world_size
from metric_module.encoders.base import Encoder, embed
from metric_module.errors import UserError
from metric_module.evaluation import EmbeddingMetric, Gathered
from metric_module.evaluation.metrics.threshold import with_threshold
from metric_module.functional import nonfinite_rows
from metric_module.preprocessing import Preprocessing, from_json
from metric_module.sample_ids import SampleIds
from metric_module.storage.weights import for_training, for_use
from metric_module.training.monitor import check_monitors

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class EmbeddingModule(LightningModule, ABC):
    """An encoder and a metric: evaluation and prediction, without training.

    Args:
        encoder: Maps inputs to embeddings ``(B, D)``.

    Attributes:
        metric: Collects embeddings and computes the figures; a subclass sets it.
        config: Plain values that every checkpoint keeps under ``config``; None keeps nothing.
        preprocessing: How one item becomes an encoder input; that of the data module in training. Checkpoints keep it.
        threshold: Distance up to which two samples count as the same: the best one on the last validation set, if its
            metric computes one; of several loaders, the first. Checkpoints keep it, and the test applies it.
        finds_threshold: Whether a validation finds and logs :attr:`threshold` also if the metric has none, from data of
            classes; None if these do not allow it. It takes up to a minute. The task ``train`` sets it for its last
            validation, of the best weights; with a Trainer of your own, set it before ``trainer.validate(module)``.
    """

    metric: EmbeddingMetric

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.config: dict[str, Any] | None = None
        self.preprocessing: Preprocessing | None = None
        self.threshold: float | None = None
        self.finds_threshold = False
        self._warned = False
        self._metrics: list[EmbeddingMetric] = []  # one for each loader; the first is self.metric
        self._ids: list[SampleIds] = []
        self._seen = 0
        self._embedding_dtype: torch.dtype | None = None
        self._bad: list[Tensor] = []

    @abstractmethod
    def loss_of_set(self, samples: Gathered) -> Tensor:
        """Compute the loss of the samples of all processes, ``()``; every process calls it with the same samples."""

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
        self._collect(batch, batch_idx, dataloader_idx)

    @override
    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect the embeddings of one batch."""
        self._collect(batch, batch_idx, dataloader_idx)

    @override
    def on_validation_epoch_end(self) -> None:
        """Log the figures of the whole validation set of each loader, but not if a sanity check read only a part."""
        self._finish_evaluation("val")

    @override
    def on_test_epoch_end(self) -> None:
        """Log the figures of the whole test set of each loader."""
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
        """Warn, once and outside a training, that embeddings depend on dropout and on the rest of their batch."""
        if self.encoder.training and not self._warned and not (self._trainer and self._trainer.training):
            self._warned = True
            rank_zero_warn(
                f"{type(self.encoder).__name__} embeds in training mode, so that dropout and BatchNorm change the "
                "embeddings; call module.eval() first"
            )

    def _encode(self, inputs: Any, labels: Tensor | None = None) -> Tensor:
        """Embed inputs, ``(B, D)``, and check that there is one embedding per label."""
        try:
            embeddings = self._embed(inputs)
        except RuntimeError as error:
            wanted = next((part.dtype for part in self.encoder.parameters() if part.is_floating_point()), None)
            if isinstance(inputs, Tensor) and inputs.is_floating_point() and wanted not in {None, inputs.dtype}:
                expected = f"inputs of {wanted}, the type of its weights, got {inputs.dtype}"
                advice = "let the data set convert them, as with .float()"
                raise UserError(f"{type(self.encoder).__name__}: expected {expected}; {advice}") from error
            raise
        if labels is not None and len(labels) != len(embeddings):
            got = f"{len(embeddings)} for {len(labels)} labels"
            raise UserError(f"{type(self.encoder).__name__}: expected one embedding per label, got {got}")
        return embeddings

    def _refuse(self, bad: Tensor, seen: int, dtype: torch.dtype | None, names: str = "sample ids") -> None:
        """Stop all processes if any has samples ``(n,)`` with NaN or infinity, or embeddings of another type."""
        kind = FLOATS.index(dtype) if dtype in FLOATS else -1  # -1: no batch
        own = torch.tensor([[len(bad), seen, kind]], device=bad.device)  # (1, 3)
        counts = gather_rows(own, [1] * world_size()).tolist()  # (W, 3)
        kinds = [f"{FLOATS[kind]} on rank {rank}" for rank, (_, _, kind) in enumerate(counts) if kind >= 0]
        name = type(self.encoder).__name__
        if len({kind for _, _, kind in counts if kind >= 0}) > 1:
            raise UserError(f"{name}: expected embeddings of one type on all processes, got {', '.join(kinds)}")
        total, seen = (sum(column) for column in list(zip(*counts, strict=True))[:2])
        if total:
            ids = gather_rows(bad, row_counts(bad))[:5].tolist()
            all_bad = total == seen and self.global_step > 0
            advice = "training has diverged: " if all_bad else "look at these inputs, or "
            raise UserError(
                f"{name}: NaN or infinity in {total} of {seen} embeddings at step "
                f"{self.global_step}, {names} {ids}; {advice}lower the learning rate"
            )

    def _embed(self, inputs: Any) -> Tensor:
        """Embed inputs, ``(B, D)``."""
        return embed(self.encoder, inputs)

    def _start_evaluation(self, stage: str) -> None:
        """Prepare a metric for each loader, or one for all of them if they are one retrieval task."""
        self._take_sought(stage)
        self._seen, self._embedding_dtype = 0, None
        self._bad.clear()
        self.metric.reset()
        facts = DataModuleFacts.of(self.trainer)
        # Not trainer.val_dataloaders: in trainer.validate these may be those of an earlier fit.
        combined = self.trainer._evaluation_loop._combined_loader
        loaders = [] if combined is None else combined.flattened
        self._ids = [SampleIds(loader, facts.has_ids) for loader in loaders]
        others = [] if facts.in_one_set else loaders[1:]
        self._metrics = [self.metric, *(self.metric.empty_copy() for _ in others)]

    def _collect(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        inputs, labels, index = unpack(batch)
        if len(batch) < 3:
            if len(self._ids) > len(self._metrics):
                raise UserError("batch: expected (inputs, labels, index), as queries and gallery have separate loaders")
            index = self._ids[dataloader_idx].of_batch(batch_idx, len(labels)).to(labels.device)
        embeddings = self._encode(inputs, labels)  # (B, D)
        self._seen += len(labels)
        self._embedding_dtype = embeddings.dtype
        bad = nonfinite_rows(embeddings)
        if len(bad):  # processes may have different numbers of batches, so they stop together at the end
            self._bad.append(index.index_select(0, bad))
            return
        facts = DataModuleFacts.of(self.trainer)
        groups, queries = (
            None if fact is None else fact.to(index.device).index_select(0, index)  # (B,)
            for fact in (facts.groups, facts.queries)
        )
        self._metrics[min(dataloader_idx, len(self._metrics) - 1)].update(embeddings, labels, index, groups, queries)

    def _finish_evaluation(self, stage: str) -> None:
        """Log the figures of each loader under Lightning's names."""
        bad = torch.cat([torch.zeros(0, dtype=torch.int64, device=self.device), *self._bad])  # (n,)
        self._refuse(bad, self._seen, self._embedding_dtype)
        partial = self.trainer.sanity_checking and self.trainer.num_sanity_val_steps < math.inf
        if partial or self.trainer.barebones:
            return
        for number, metric in enumerate(self._metrics):
            loader = f"/dataloader_idx_{number}" if len(self._metrics) > 1 else ""
            for name, value in self._figures(metric, stage).items():
                shown = name in {"loss", "recall_at_1", "map_at_r", "ndcg_at_10"}
                self.log(f"{stage}/{name}{loader}", value.float(), prog_bar=shown, add_dataloader_idx=False)
            for line in metric.left_out:
                rank_zero_warn(f"{stage}{loader}: figures are left out: {line}")

    def _figures(self, metric: EmbeddingMetric, stage: str) -> dict[str, Tensor]:
        """Compute the figures of a metric by name; for data with classes also the loss."""
        metric.threshold = self.threshold if stage == "test" else None
        facts = DataModuleFacts.of(self.trainer)
        metric.pairs, metric.folds = facts.pairs, facts.pair_folds
        samples = metric.gathered()
        figures = metric.compute()
        if stage == "val" and metric is self.metric:
            if self.finds_threshold:
                figures = with_threshold(metric, figures)
            if self.finds_threshold or "best_threshold" in figures:
                self.threshold = figures.get("best_threshold")
        loss = {} if metric.sought is not None else {"loss": self.loss_of_set(samples)}
        return loss | {name: torch.tensor(value) for name, value in figures.items()}

    def _take_sought(self, stage: str) -> None:
        """Hand the relations of a stage to the metric, if the data has any, and check that it can measure them."""
        sought = DataModuleFacts.of(self.trainer).sought
        self.metric.sought = None if sought is None else sought[stage]
        self.metric.check_sought()
