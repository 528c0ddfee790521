"""Train an encoder, then measure the best weights once: the task ``train``."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig

from metric_module.callbacks import FreezeBackbone
from metric_module.config.checks import check
from metric_module.config.plain import plain
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.distributed import check_shares
from metric_module.errors import UserError
from metric_module.storage.checkpoints import keep_threshold, load_checkpoint
from metric_module.storage.weights import NAME, save_encoder
from metric_module.tasks.build import Parts, build
from metric_module.tasks.checkpoint import find_checkpoint, load_state
from metric_module.tasks.resume_options import resume_options
from metric_module.tasks.run_report import read_trained_figures
from metric_module.tasks.run_start import RunStart
from metric_module.training.monitor import check_has_monitor
from metric_module.training.sharded_strategy import check_sharded
from metric_module.training.sharding import gather_weights


def train(cfg: DictConfig) -> dict[str, float]:
    """Fit, measure the best checkpoint by ``cfg.monitor`` on val and test, and write ``encoder.safetensors``.

    Of data with classes, ``val/best_threshold`` is measured too, whatever the evaluation; the best checkpoint and
    ``encoder.safetensors`` keep it.

    Test is measured once, at the end; not at all with ``test: false``, the default for jobs of a sweep.

    Args:
        cfg: The composed configuration. With ``ckpt_path``, training continues from that checkpoint; with ``last``,
            from the newest one in the run's folder that is whole.

    Returns:
        The figures, ``{"val/map_at_r": ..., "test/map_at_r": ...}``.

    Raises:
        UserError: If the configuration or the data is wrong.
    """
    cfg = plain(cfg)
    check(cfg)
    path = find_checkpoint(cfg)
    start = RunStart(cfg, [] if path is None else resume_options(cfg, path))
    parts = build(cfg, encoder_weights=path is None)
    _check_parts(parts)
    parts.trainer.callbacks.append(start)  # type: ignore[attr-defined]
    check_has_monitor(cfg)
    if path is None and cfg.ckpt_path is not None:
        rank_zero_warn(f"ckpt_path=last: no checkpoint in {cfg.output_dir}/checkpoints yet, so training starts anew")
    parts.trainer.fit(parts.module, datamodule=parts.datamodule, ckpt_path=path, weights_only=True)
    start.record(parts.trainer)
    best, step = (None, None) if cfg.trainer.fast_dev_run else _take_best(parts)
    parts.module.finds_threshold = not cfg.trainer.fast_dev_run
    figures = read_trained_figures(cfg, parts, step)
    if parts.module.threshold is None:  # ddp_spawn: the module that was measured is gone
        parts.module.threshold = figures.get("val/best_threshold")
    gather_weights(parts.module.encoder)
    if parts.trainer.is_global_zero and parts.trainer.checkpoint_callbacks and not cfg.trainer.fast_dev_run:
        _write_results(parts, Path(cfg.output_dir) / NAME, best)
    return figures


def _check_parts(parts: Parts) -> None:
    """Reject batches without positives, unless a memory may have them, and those that processes cannot share evenly.

    The second is found here, before there are other processes, so that it is said once. So is what cannot be sharded.
    """
    for callback in parts.trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, FreezeBackbone):
            callback.check_strategy(parts.trainer)
    check_sharded(parts.module, parts.trainer)
    facts = DataModuleFacts(parts.datamodule)
    if facts.classes_per_batch is not None:
        check_shares("datamodule.classes_per_batch", facts.classes_per_batch, parts.trainer.world_size)
    if facts.samples_per_class == 1 and parts.module.memory is None:
        raise UserError(
            "datamodule.samples_per_class: expected at least 2, or a memory (memory.size=8192, say), got 1: an anchor "
            "has no positive"
        )


def _write_results(parts: Parts, path: Path, best: Path | None) -> None:
    """Write the encoder's weights, and the threshold to the best checkpoint.

    Only warn if that fails, because figures and checkpoints are complete without. ``last.ckpt`` keeps the threshold of
    its own weights, if it has one; so without a best checkpoint, ``encoder.safetensors`` alone has the new one.
    """
    module = parts.module
    distance = type(module.criterion.distance).__name__
    try:
        save_encoder(module.encoder, path, module.preprocessing, distance, module.threshold)
    except UserError as error:
        rank_zero_warn(str(error))
    try:
        if best is not None:
            keep_threshold(best, module.threshold)
    except UserError as error:
        rank_zero_warn(str(error))


def _take_best(parts: Parts) -> tuple[Path | None, int | None]:
    """Load the best checkpoint; without validation, or if the file is gone, keep the last weights.

    Returns:
        The checkpoint, if it is in this run's own folder: a run that resumes elsewhere may not have found a better one.
        And its optimizer step; None without one.
    """
    savers = [saver for saver in parts.trainer.checkpoint_callbacks if isinstance(saver, ModelCheckpoint)]
    found = [saver for saver in savers if saver.monitor is not None and saver.best_model_path]
    if not found:
        return None, None
    best = Path(found[0].best_model_path)
    if not best.is_file():
        rank_zero_warn(f"checkpoint: {best} is gone, so the figures are those of the last weights")
        return None, None
    checkpoint = load_checkpoint(best)
    load_state(parts.module, checkpoint, str(best))
    own = best.resolve().parent == Path(str(found[0].dirpath)).resolve()
    return best if own else None, int(checkpoint["global_step"])
