"""Callback of the moment at which a training starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig
from typing_extensions import override

from metric_module.tasks.run_files import write_config


class RunStart(Callback):
    """Record the options of a run when its training starts, and keep its best checkpoint if its folder was moved.

    Args:
        cfg: The composed configuration.
        changes: Lines about changed options, printed when training starts.
    """

    def __init__(self, cfg: DictConfig, changes: list[str]) -> None:
        self.cfg = cfg
        self.changes = changes
        self._recorded = False

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Correct the paths of checkpoints in the folder of the run, which Lightning keeps as absolute paths."""
        folder = Path(str(trainer.ckpt_path)).resolve().parent
        states = checkpoint.get("callbacks") or {}
        for saver in trainer.checkpoint_callbacks:
            state = states.get(saver.state_key)
            if not isinstance(saver, ModelCheckpoint) or state is None:
                continue
            if saver.dirpath is not None and Path(saver.dirpath) == folder:
                state = states[saver.state_key] = _moved(state, str(saver.dirpath))
            best = state["best_model_path"]
            if best and not Path(best).is_file():
                rank_zero_warn(f"checkpoint: {best} is gone, so the best score so far does not count")
                del states[saver.state_key]

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the options, now that nothing rejects them any more."""
        self.record(trainer)

    def record(self, trainer: Trainer) -> None:
        """Record the options once, on the first process; also of a training that was already at its end.

        Args:
            trainer: The trainer of the run.
        """
        if self._recorded or not trainer.is_global_zero:
            return
        write_config(self.cfg)
        self._recorded = True
        for line in self.changes:
            print(line, flush=True)


def _moved(state: dict[str, Any], folder: str) -> dict[str, Any]:
    """Replace the old folder in the state of a :class:`ModelCheckpoint` by the one that it has now."""
    old = str(state["dirpath"])

    def here(path: str) -> str:
        """Path of the same file in the new folder."""
        return str(Path(folder) / Path(path).relative_to(old)) if Path(path).is_relative_to(old) else path

    paths = ("best_model_path", "kth_best_model_path", "last_model_path")
    moved = {name: here(state[name]) if state.get(name) else state.get(name, "") for name in paths}
    best = {here(path): score for path, score in state.get("best_k_models", {}).items()}
    return {**state, **moved, "best_k_models": best, "dirpath": folder}
