"""Embeddings of a whole data set in one file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from omegaconf import DictConfig
from torch import Tensor
from typing_extensions import override

from metric_module.batch import unpack
from metric_module.config.checks import check
from metric_module.distributed import gather_rows, row_counts, sum_over_ranks, world_size
from metric_module.encoders.base import embed as encode
from metric_module.errors import UserError
from metric_module.functional import nonfinite_rows
from metric_module.module import TripletModule
from metric_module.storage.atomic import beside
from metric_module.storage.checkpoints import load_checkpoint
from metric_module.tasks.build import Parts, build
from metric_module.tasks.checkpoint import as_trained
from metric_module.tasks.embedding.formats import FORMATS, write_npz, write_parquet
from metric_module.tasks.embedding.names import class_names, split_of
from metric_module.tasks.embedding.shards import Shares, ShareWriter
from metric_module.tasks.embedding.split import split_loader
from metric_module.tasks.run_files import find_checkpoint, load_weights, write_config


def embed(cfg: DictConfig) -> dict[str, float]:
    """Write the embeddings of ``cfg.task.split`` to ``embeddings.npz`` or ``embeddings.parquet`` in the run's folder.

    With ``cfg.ckpt_path`` the weights are those of the checkpoint, and, from the command line, so are encoder and data
    except for what the command line says. Without, the encoder is as it is built: with ``cfg.module.encoder_weights``,
    pretrained, or fresh.

    Args:
        cfg: The composed configuration. ``cfg.task`` has ``split`` (train, val, test or all) and ``format`` (npz or
            parquet).

    Returns:
        How many, and how wide: ``{"embed/samples": ..., "embed/width": ...}``.

    Raises:
        UserError: If the configuration or the data is wrong, an embedding is not finite, or the file cannot be written.
    """
    path = find_checkpoint(cfg)
    if path is None and cfg.ckpt_path is not None:
        raise UserError(f"ckpt_path={cfg.ckpt_path}: no checkpoint in {cfg.output_dir}/checkpoints")
    if path is not None:
        cfg = as_trained(cfg, load_checkpoint(path))
    check(cfg)
    if cfg.task.format not in FORMATS:
        raise UserError(f"task.format: expected {' or '.join(FORMATS)}, got {cfg.task.format!r}")
    cfg.logger = {}  # there is nothing to log
    parts = build(cfg)
    if path is not None:
        load_weights(parts.module, path)
    if parts.trainer.is_global_zero:
        write_config(cfg)
    file = Path(cfg.output_dir) / f"embeddings.{cfg.task.format}"
    samples, width = embed_to_file(parts, cfg.task.split, file)
    if parts.trainer.is_global_zero:
        weights = path or cfg.module.encoder_weights or "the encoder as it was built, no ckpt_path"
        print(f"{samples:,} embeddings of {width} numbers (split {cfg.task.split}; {weights}) written to {file}")
    return {"embed/samples": float(samples), "embed/width": float(width)}


def embed_to_file(parts: Parts, split: str, path: Path) -> tuple[int, int]:
    """Embed every sample of a split once, over all processes, without augmentation, in bounded memory.

    Each process writes what it reads to a folder beside the file, which all must see; the first puts it in order of id.
    The file appears when it is whole.

    Args:
        parts: Module, data and trainer.
        split: ``train``, ``val``, ``test`` or ``all``.
        path: The file, ``.npz`` or ``.parquet``.

    Returns:
        How many samples, and D; zeros on every process but the first.

    Raises:
        UserError: If the data module cannot show that split, an embedding is not finite, or a file cannot be written.
    """
    folder = path.with_name(f".{path.name}.shares")
    try:
        loader = split_loader(parts, split)
        with ShareWriter(folder, parts.trainer.global_rank) as writer:
            module = _Writing(parts.module, writer)
            parts.trainer.predict(module, dataloaders=loader, return_predictions=False, weights_only=True)
        if not parts.trainer.is_global_zero:
            return 0, 0
        return _put_together(parts, split, path, Shares(folder, parts.trainer.world_size))
    except OSError as error:
        raise UserError(f"embed: cannot write {path} ({error.strerror or error})") from error
    finally:
        if parts.trainer.is_global_zero:
            _remove(folder)


def _put_together(parts: Parts, split: str, path: Path, shares: Shares) -> tuple[int, int]:
    """Write the file."""
    write = {"npz": write_npz, "parquet": write_parquet}[path.suffix[1:]]
    names = class_names(parts.datamodule, shares.ids, shares.labels)
    with beside(path) as part:
        write(part, shares, names, split_of(parts.datamodule) if split == "all" else None)
    return len(shares.ids), shares.width


def _remove(folder: Path) -> None:
    """Remove the shares; others may have done so."""
    with suppress(FileNotFoundError):
        for path in sorted(folder.iterdir()):
            path.unlink(missing_ok=True)
        folder.rmdir()


class _Writing(LightningModule):
    """Runs a module's encoder over batches, and writes what comes out."""

    def __init__(self, module: TripletModule, writer: ShareWriter) -> None:
        super().__init__()
        self.module = module
        self._writer = writer
        self._seen = 0
        self._bad: Sequence[int] = ()

    @override
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Embed and write one batch; after an embedding that is not finite, none."""
        if self._bad:
            return torch.empty(0)
        if world_size() > 1 and len(batch) != 3:
            raise UserError("batch: expected (inputs, labels, index) on several processes, got a batch without index")
        inputs, labels, index = unpack(batch, self._seen)
        embeddings = encode(self.module.encoder, inputs)  # (B, D)
        if len(labels) != len(embeddings):
            got = f"{len(embeddings)} for {len(labels)} labels"
            raise UserError(f"{type(self.module.encoder).__name__}: expected one embedding per label, got {got}")
        self._bad = index[nonfinite_rows(embeddings)].tolist()
        self._seen += len(labels)
        self._writer.append(index, labels, embeddings)
        if self._bad and world_size() == 1:
            self._refuse()
        return torch.empty(0)

    @override
    def on_predict_epoch_end(self) -> None:
        """Once every process has all of its share on disk, stop them all alike if any has met a bad embedding."""
        self._writer.flush()
        self._refuse()

    def _refuse(self) -> None:
        bad = torch.tensor(self._bad, dtype=torch.int64, device=self.device)
        total = int(sum_over_ranks(torch.tensor(len(bad), device=self.device)))
        if total:
            ids = gather_rows(bad, row_counts(bad))[:5].tolist()
            name = type(self.module.encoder).__name__
            raise UserError(f"{name}: NaN or infinity in {total} embeddings, sample ids {ids}; look at these inputs")
