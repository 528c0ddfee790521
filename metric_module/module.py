"""The data flow of training: batch -> encoder -> gather -> criterion -> loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override

from metric_module.batch import PairBatch, check_pair_batch, unpack
from metric_module.criterion import CriterionOutput, TripletCriterion
from metric_module.criterion.census import shares
from metric_module.criterion.inputs import MiningInput
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.distributed import shard, sum_over_ranks, world_size
from metric_module.embedding_module import EmbeddingModule
from metric_module.encoders.base import Encoder, embed
from metric_module.encoders.batch_norm import refuse_batch_norm, warn_of_local_statistics
from metric_module.encoders.chunks import check_size, encode_in_chunks
from metric_module.errors import UserError
from metric_module.evaluation import EmbeddingMetric, Gathered, RetrievalMetric
from metric_module.functional import move, nonfinite_rows
from metric_module.miners import Scheduled
from metric_module.training.global_batch import GlobalBatch, pairs_among_all, samples_among_all
from metric_module.training.health import Health, health
from metric_module.training.memory import CrossBatchMemory
from metric_module.training.optimizers import (
    OptimizerFactory,
    check_length,
    check_lr_scale,
    configured,
    follow_optimizer,
)
from metric_module.training.train_loaders import check_train_loaders
from metric_module.training.validation_batches import validation_batches


class TripletModule(EmbeddingModule):
    """A Lightning module that trains an encoder with the triplet loss, and evaluates it on whole sets.

    Batches are :class:`Batch`, ``(inputs, labels)`` or :class:`PairBatch`. Logged: ``train/loss``, the shares
    ``train/easy``, ``train/semihard`` and ``train/hard`` of triplets in [0, 1], and over the whole validation and test
    sets ``val/recall_at_1``, ``val/map_at_r`` and so on; ``val/loss`` is the mean over batches of the shape of training
    batches that are drawn from the set. Several loaders have their figures apart, as ``val/loss/dataloader_idx_1``.
    Samples without an id are numbered by :class:`metric_module.sample_ids.SampleIds`. Attributes of the data module add
    figures:
    ``groups``, int64 ``(N,)`` by sample id, retrieval across groups; ``queries``, bool ``(N,)``, retrieval of these
    queries in a gallery of the other samples; ``pairs`` and ``pair_folds``, verification of these pairs of ids;
    ``sought``, by stage, retrieval of pairs, without ``val/loss``, as pairs have no labels.

    Args:
        encoder: Maps inputs to embeddings ``(B, D)``.
        criterion: Distance, miner and margin.
        optimizer: Called with the parameters, or with groups of them for ``lr_scale``. Default: AdamW, learning rate
            1e-3.
        scheduler: Called with the optimizer, and with ``total_steps`` if it accepts that; stepped after every batch. A
            single ``max_lr`` is scaled for each group.
        metric: Collects embeddings and computes the figures. Default: retrieval under the criterion's distance.
        memory: Embeddings of past batches, as additional references in training.
        encode_chunk_size: In training, number of samples to encode at a time, without keeping activations: the
            triplets and the gradient of the whole batch in the memory of a chunk, for a second forward pass.
        gather: With several processes, mine each process's anchors among the samples of all processes, so that N
            processes train as one process does on the same global batch. False: each mines its own samples only.
            Gradient accumulation adds no negatives in either case.
        lr_scale: Factors on the learning rate by the name of a submodule, ``{"encoder.backbone": 0.1}``; if several
            names fit a parameter, the longest counts.
        both_ways: With pairs, references are anchors too, and queries their positives and negatives, as an image
            retrieves its captions (Faghri et al. 2018); loss and census are over the triplets in both directions.

    Attributes:
        health: Diagnostics of the last training step; None before the first. For the others see
            :class:`EmbeddingModule`.

    Raises:
        UserError: If the memory does not fit the encoder, the chunk size is below 1, or a factor is not positive or
            names no submodule. While training, if the encoder's output has the wrong shape or is not finite on any
            process, or a batch has the wrong form.
    """

    def __init__(
        self,
        encoder: Encoder,
        criterion: TripletCriterion,
        optimizer: OptimizerFactory | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        metric: EmbeddingMetric | None = None,
        memory: CrossBatchMemory | None = None,
        encode_chunk_size: int | None = None,
        gather: bool = True,
        lr_scale: Mapping[str, float] | None = None,
        both_ways: bool = False,
    ) -> None:
        super().__init__(encoder)
        check_size(encode_chunk_size)
        if memory is not None:
            memory.check_width(encoder)
        self.criterion = criterion
        self.metric = RetrievalMetric(distance=criterion.distance) if metric is None else metric
        self.memory = memory
        self.encode_chunk_size = encode_chunk_size
        self.gather = gather
        self.lr_scale: Mapping[str, float] = {} if lr_scale is None else lr_scale
        check_lr_scale(self, self.lr_scale)
        self.both_ways = both_ways
        self.health: Health | None = None
        self._is_first = True
        self._to_check: list[tuple[Tensor, Tensor, str]] = []
        self._optimizer = optimizer or partial(AdamW, lr=1e-3)
        self._scheduler = scheduler

    @override
    def on_fit_start(self) -> None:
        """Check the validation metric, and warn of BatchNorm statistics that processes do not share."""
        super().on_fit_start()
        if self.trainer.world_size > 1:
            warn_of_local_statistics(self.encoder, self.device.type)

    @override
    def on_train_start(self) -> None:
        """Check the loaders as Lightning has changed them, and let restored schedules take the current rates."""
        check_train_loaders(self.trainer.train_dataloader, self.device)
        for configuration in self.trainer.lr_scheduler_configs:
            follow_optimizer(configuration.scheduler)

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Reject a checkpoint whose learning-rate schedule has another length, and restore the threshold."""
        super().on_load_checkpoint(checkpoint)
        trainer = self._trainer
        if trainer is not None and trainer.training:
            check_length(checkpoint.get("lr_schedulers", ()), trainer)

    @override
    def on_train_epoch_start(self) -> None:
        """Pass the epoch to a schedule of miners."""
        if isinstance(self.criterion.miner, Scheduled):
            self.criterion.miner.epoch.fill_(self.current_epoch)

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Encode, gather, mine, and return the loss of one global batch."""
        take_census = self.criterion.census and self._logs_this_step()
        loss, census = self.mine(batch, take_census)
        if not self.trainer.barebones:
            self.log("train/loss", loss, prog_bar=True)
        if take_census:
            self.log_dict(shares(census), prog_bar=True)
        return loss

    def mine(self, batch: Any, census: bool) -> CriterionOutput:
        """Compute loss and census of this process's anchors among the references of all processes.

        Args:
            batch: :class:`Batch`, ``(inputs, labels)`` or :class:`PairBatch`.
            census: Whether to count easy, semi-hard and hard triplets.

        Raises:
            UserError: If the batch has the wrong form, or an embedding of any process is not finite.
        """
        whole = self._pairs(check_pair_batch(batch)) if isinstance(batch, PairBatch) else self._samples(batch)
        try:
            output = self.criterion.mine(whole.given, census)
        except UserError:
            for check in self._to_check:
                self._refuse_nonfinite(*check)
            raise
        finally:
            self._to_check.clear()
        self.health = health(self.criterion, output, whole.embeddings)
        if self._is_first and self.memory is None and int(output.census.lone_anchors) > int(output.census.anchors) == 0:
            rank_zero_warn(
                "train: no sample of the first batch has both a positive and a negative; "
                "use batches of P classes x K samples, as datamodules.PKSampler draws them"
            )
        self._is_first = False
        return output

    def _samples(self, batch: Any) -> GlobalBatch:
        """Labelled samples of this process among those of all processes and of past batches."""
        if self.both_ways:
            raise UserError("module.both_ways: expected pairs; with classes every sample is an anchor as it is")
        inputs, labels, index = unpack(batch)
        embeddings = self._finite(self._encode(inputs, labels), index, "sample ids")  # (B, D)
        return samples_among_all(embeddings, labels, index if len(batch) == 3 else None, self.gather, self.memory)

    def _pairs(self, batch: PairBatch) -> GlobalBatch:
        """Queries of this process among the references of all processes."""
        if self.memory is not None:
            raise UserError("memory.size: a memory holds labels, and a PairBatch has none; expected 0 with pairs")
        query, reference = self._embed(batch.query), self._embed(batch.reference)  # (B, D), (M, D)
        query = self._finite(query, batch.index, "query ids")
        rows = torch.arange(len(reference), device=reference.device)
        reference = self._finite(reference, rows, "rows of the references")
        return pairs_among_all(query, reference, batch, self.gather, self.both_ways)

    def _finite(self, embeddings: Tensor, ids: Tensor, names: str) -> Tensor:
        """Accept embeddings ``(B, D)`` that are finite on all processes; the criterion does not check them again."""
        if not embeddings.is_floating_point():
            name = type(self.encoder).__name__
            raise UserError(f"{name}: expected floating point embeddings, got {embeddings.dtype}")
        if world_size() > 1 or self.memory is not None:  # before other processes wait, or the memory takes them up
            self._refuse_nonfinite(embeddings, ids, names)
        else:  # found with the loss, so that the host waits for the device once
            self._to_check.append((embeddings, ids, names))
        return embeddings

    def _refuse_nonfinite(self, embeddings: Tensor, ids: Tensor, names: str) -> None:
        """Stop all processes if any has embeddings ``(B, D)`` with NaN or infinity, and name their ids."""
        bad = nonfinite_rows(embeddings.detach())
        self._refuse(ids[bad[bad < len(ids)]], len(embeddings), embeddings.dtype, names)

    @override
    def loss_of_set(self, samples: Gathered) -> Tensor:
        """Compute the mean loss of batches of a set, of the shape of training batches, ``()``; each process a shard.

        See :func:`metric_module.training.validation_batches.validation_batches`.
        """
        shape = DataModuleFacts.of(self.trainer).batch_shape
        batches = validation_batches(samples.labels, samples.ids, *shape)
        losses = samples.embeddings.new_zeros(len(batches))  # (T,)
        rank, processes = shard()
        for number in range(rank, len(batches), processes):
            rows = batches[number]
            given = MiningInput(samples.embeddings.index_select(0, rows), samples.labels[rows])
            losses[number] = self.criterion.mine(given, census=False).loss
        return sum_over_ranks(move(losses, self.device)).mean()

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer over all parameters, and the scheduler, if any."""
        return configured(self, self._optimizer, self._scheduler, self.lr_scale)

    def _logs_this_step(self) -> bool:
        """Whether the logger writes this step; the first counts too, so that the progress bar is complete at once."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (self.global_step == 0 or (self.global_step + 1) % every == 0)  # 0: never

    def _embed(self, inputs: Any) -> Tensor:
        """Embeddings ``(B, D)``; in training chunk by chunk if ``encode_chunk_size`` is set."""
        if self.encode_chunk_size is None or not self.training:
            return super()._embed(inputs)
        refuse_batch_norm(self.encoder)
        return encode_in_chunks(partial(embed, self.encoder), inputs, self.encode_chunk_size)
