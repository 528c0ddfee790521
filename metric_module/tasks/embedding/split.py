"""Embed every sample of a split once, over all processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningDataModule, LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from metric_module.batch import unpack
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.encoders.base import Encoder, embed
from metric_module.errors import UserError
from metric_module.tasks.build import Parts
from metric_module.tasks.embedding.shards import Shards, ShardWriter

T = TypeVar("T")


def embed_split(parts: Parts, split: str, folder: Path, read: Callable[[Shards], T]) -> T:
    """Embed a split without augmentation, read the result on the first process, and return that on all.

    Each process writes a shard to the folder, which all processes must see. An error of ``read`` stops all of them.

    Args:
        parts: Module, data module and trainer.
        split: ``train``, ``val``, ``test`` or ``all``.
        folder: Folder of the shards; they are removed.
        read: Called with the merged shards, while they exist.

    Returns:
        The result of ``read``.

    Raises:
        UserError: If the data module cannot show that split, or an embedding is not finite.
    """
    trainer, encoder = parts.trainer, parts.module.encoder
    loaders = split_loader(parts, split)
    writer = ShardWriter(folder, type(encoder).__name__)
    result: T | OSError | ValueError | None = None
    try:
        with warnings.catch_warnings():
            # Lightning looks for ids in the sampler; the batches have their own.
            warnings.filterwarnings("ignore", "Couldn't infer the batch indices fetched")
            trainer.predict(_Predictor(encoder, writer), loaders, return_predictions=False, weights_only=True)
        if trainer.is_global_zero:
            try:
                result = read(Shards(writer.folder, trainer.world_size))
            except (OSError, ValueError) as error:  # the other processes would wait forever
                result = error
        result = trainer.strategy.broadcast(result)
    finally:
        writer.remove()
    if isinstance(result, Exception):
        raise result
    return result  # type: ignore[return-value]


def split_loader(parts: Parts, split: str) -> DataLoader[Any] | list[DataLoader[Any]]:
    """Load every sample of a split in order; of relations, queries and then references.

    A data module of a user's own needs Lightning's methods alone.

    Args:
        parts: Module, data module and trainer.
        split: ``train``, ``val``, ``test`` or ``all``; of a data module without ``eval_dataloader`` ``val``, ``test``,
            or, for ``all``, its ``predict_dataloader``.

    Raises:
        UserError: If the data module cannot show that split.
    """
    data = parts.datamodule
    data.trainer = parts.trainer
    data.prepare_data()
    data.setup({"train": "fit", "val": "validate", "all": "predict"}.get(split, "test"))
    if (eval_dataloader := DataModuleFacts(data).eval_dataloader) is not None:
        try:
            loader: DataLoader[Any] = eval_dataloader(split)
        except UserError as error:
            raise UserError(f"task.split: {error}") from error
        return loader
    hooks = {"val": data.val_dataloader, "test": data.test_dataloader}
    if type(data).predict_dataloader is not LightningDataModule.predict_dataloader:
        hooks["all"] = data.predict_dataloader
    if split not in hooks:
        *others, last = hooks
        expected = f"{', '.join(others)} or {last}"
        raise UserError(f"task.split: {type(data).__name__} has no eval_dataloader; expected {expected}, got {split!r}")
    made: DataLoader[Any] | list[DataLoader[Any]] = hooks[split]()
    return made


class _Predictor(LightningModule):
    """Embed batches; unlike the module's own ``predict_step``, pass on NaN, so that all processes can stop together."""

    def __init__(self, encoder: Encoder, writer: ShardWriter) -> None:
        super().__init__()
        self.encoder = encoder
        self._writer = writer

    @override
    def configure_callbacks(self) -> Sequence[Callback]:
        """Let the trainer call the writer."""
        return [self._writer]

    @override
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Embed a batch of samples, ``(B, D)``."""
        return embed(self.encoder, unpack(batch).inputs)
