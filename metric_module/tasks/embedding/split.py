"""Embeddings of a whole split, by the module as it is."""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from metric_module.batch import unpack
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.errors import UserError
from metric_module.evaluation import EmbeddingMetric, Gathered
from metric_module.module import TripletModule
from metric_module.tasks.build import Parts


class Collected(EmbeddingMetric):
    """Collects, and has no figures of its own."""

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """None."""
        return {}


def embed_split(parts: Parts, split: str) -> Gathered:
    """Embed every sample of a split once, over all processes, without augmentation.

    Args:
        parts: Module, data and trainer.
        split: ``train``, ``val`` or ``test``.

    Returns:
        Embeddings, labels and ids of all samples, in order of id, on every process.

    Raises:
        UserError: If the data module cannot show that split, or an embedding is not finite.
    """
    module = _Embedder(parts.module)
    parts.trainer.predict(module, dataloaders=split_loader(parts, split), return_predictions=False, weights_only=True)
    return module.collected.gathered()


def split_loader(parts: Parts, split: str) -> DataLoader[Any] | list[DataLoader[Any]]:
    """Every sample of a split in order, of pairs the two kinds one after the other.

    A data module of a user's own need only have what Lightning asks for.

    Args:
        parts: Module, data and trainer.
        split: ``train``, ``val``, ``test`` or ``all``; of a data module without ``eval_dataloader`` val, test, or, for
            ``all``, what it predicts.

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


class _Embedder(LightningModule):
    """Runs a module's encoder over batches."""

    def __init__(self, module: TripletModule) -> None:
        super().__init__()
        self.module = module
        self.collected = Collected()
        self._seen = 0

    @override
    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Collect the embeddings of one batch."""
        _, labels, index = unpack(batch, self._seen)
        embeddings = self.module.predict_step(batch, batch_idx)
        self._seen += len(labels)
        self.collected.update(embeddings, labels, index)
        return torch.empty(0)
