"""Write a trained encoder for other programs: the task ``export``."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from metric_module.errors import UserError
from metric_module.export.hugging_face import push_to_hub, write_folder, write_sentence_transformers
from metric_module.export.onnx import write_onnx
from metric_module.storage.atomic import beside
from metric_module.tasks.run_files import write_config
from metric_module.tasks.trained_model import load_model

FORMATS = {"onnx": write_onnx, "hugging_face": write_folder, "sentence_transformers": write_sentence_transformers}


def export(cfg: DictConfig) -> dict[str, float]:
    """Write the encoder of ``cfg.ckpt_path`` as ``encoder.onnx``, or as the folder ``model``, in the run's folder.

    Args:
        cfg: The composed configuration. ``cfg.ckpt_path`` is a run, a checkpoint or an exported folder. ``cfg.task``
            has ``format`` (onnx, hugging_face or sentence_transformers), ``tower``, the name of one of several
            encoders, and ``push``, a repository of the Hugging Face hub to upload the folder to.

    Returns:
        Embedding size: ``{"export/width": ...}``.

    Raises:
        UserError: If the encoder cannot be loaded, exported or uploaded.
    """
    if cfg.task.format not in FORMATS:
        raise UserError(f"task.format: expected one of {', '.join(FORMATS)}, got {cfg.task.format!r}")
    cfg, embedder = load_model(cfg, "cpu")
    path = Path(cfg.output_dir) / ("encoder.onnx" if cfg.task.format == "onnx" else "model")
    with beside(path) as part:
        FORMATS[cfg.task.format](embedder, part)
    cfg.encoder, cfg.distance = ((embedder.config or {})[name] for name in ("encoder", "distance"))
    write_config(cfg)
    print(f"{type(embedder.encoder).__name__} of {cfg.ckpt_path} written to {path}")
    if cfg.task.push is not None:
        print(f"uploaded to {push_to_hub(path, cfg.task.push)}")
    return {"export/width": float(embedder.embedding_dim)}
