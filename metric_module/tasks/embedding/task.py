"""Write the embeddings of a whole data set to one file: the task ``embed``."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from metric_module.config.plain import plain
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.errors import UserError
from metric_module.storage.atomic import beside
from metric_module.storage.weights import fingerprint
from metric_module.tasks.build import Parts
from metric_module.tasks.checkpoint import restore
from metric_module.tasks.embedding.shards import Shards
from metric_module.tasks.embedding.split import embed_split
from metric_module.tasks.run_files import write_config

FORMATS = ("arrow", "parquet", "npz")


def embed(cfg: DictConfig) -> dict[str, float]:
    """Write the embeddings of ``cfg.task.split`` to ``embeddings.arrow`` (or another format) in the run's folder.

    With ``cfg.ckpt_path`` the weights are those of the checkpoint, and, from the command line, so are encoder and data
    except for the options that were typed. Without it, the encoder is as it is built: with
    ``cfg.module.encoder_weights``, pretrained, or fresh.

    Args:
        cfg: The composed configuration. ``cfg.task`` has ``split`` (train, val, test or all) and ``format`` (arrow,
            parquet or npz).

    Returns:
        Number of samples, and embedding size: ``{"embed/samples": ..., "embed/width": ...}``.

    Raises:
        UserError: If the configuration or the data is wrong, an embedding is not finite, or the file cannot be written.
    """
    cfg = plain(cfg)
    if cfg.task.format not in FORMATS:
        raise UserError(f"task.format: expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, got {cfg.task.format!r}")
    cfg.logger = {}  # there is nothing to log
    cfg, parts, weights, _ = restore(cfg)
    file = Path(cfg.output_dir) / f"embeddings.{cfg.task.format}"
    samples, width = embed_to_file(parts, cfg.task.split, file)
    if parts.trainer.is_global_zero:
        write_config(cfg)
        origin = weights or "the encoder as it was built, no ckpt_path"
        print(f"{samples:,} embeddings of {width} numbers (split {cfg.task.split}; {origin}) written to {file}")
    return {"embed/samples": float(samples), "embed/width": float(width)}


def embed_to_file(parts: Parts, split: str, path: Path) -> tuple[int, int]:
    """Embed every sample of a split once, over all processes, without augmentation, and write one file.

    The file appears when it is complete. Its metadata are ``embedding_dim``, ``distance``, ``model``, a fingerprint of
    the encoder, and, if the module has one, ``threshold``.

    Args:
        parts: Module, data module and trainer.
        split: ``train``, ``val``, ``test`` or ``all``.
        path: The file, ``.arrow``, ``.parquet`` or ``.npz``, in a folder that all processes see.

    Returns:
        Number of samples, and embedding size D.

    Raises:
        UserError: If the data module cannot show that split, an embedding is not finite, or a file cannot be written.
    """

    def write(shards: Shards) -> tuple[int, int]:
        """Write the file on the first process."""
        from metric_module.tasks.embedding.formats import write_file  # pyarrow is slow to import
        from metric_module.tasks.embedding.names import Naming

        distance, naming = type(parts.module.criterion.distance).__name__, Naming(parts.datamodule, split)
        with beside(path) as part:
            write_file(part, path.suffix[1:], shards, naming, distance, parts.module.threshold, model)
        return len(shards.ids), shards.width

    model = fingerprint(parts.module.encoder)  # now: the trainer may change the precision of the weights
    accept_any_items = DataModuleFacts(parts.datamodule).accept_any_items
    if accept_any_items is not None:
        accept_any_items()
    try:
        return embed_split(parts, split, path.parent, write)
    except OSError as error:
        raise UserError(f"embed: cannot write {path} ({error.strerror or error})") from error
