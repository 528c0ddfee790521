"""The checkpoint ``last.ckpt``, from which training continues exactly, also after a signal."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from typing_extensions import override

from metric_module.callbacks.random_state import random_state, set_random_state
from metric_module.distributed import gather_objects
from metric_module.errors import UserError


class LastCheckpoint(Checkpoint):
    """Checkpoint ``last.ckpt`` about every ``every_n_steps`` steps, and when training ends or is stopped.

    SIGTERM and SIGINT (Ctrl-C) end training after the current step, with a checkpoint and exit code 143 or 130; a
    second Ctrl-C ends it at once. The checkpoint is written only where Lightning continues exactly: not between a step
    and the validation after it, and not between batches whose gradients are being accumulated. It also holds the global
    random number generators of every process.

    Args:
        dirpath: Folder of the checkpoint.
        every_n_steps: Optimizer steps between two checkpoints; None: a checkpoint at the end of each epoch.

    Raises:
        UserError: If ``every_n_steps`` is below 1; while training, if the weights to be written are not finite.
    """

    def __init__(self, dirpath: str, every_n_steps: int | None = 100) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise UserError(f"last.every_n_steps: expected an integer >= 1 or null, got {every_n_steps}")
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self._received: int | None = None
        self._handlers: dict[int, Any] = {}
        self._random: list[dict[str, Any]] | None = None
        self._saved_step = 0
        self._seen_step = 0
        self._stepped = False

    @override
    def state_dict(self) -> dict[str, Any]:
        """States of the random number generators of every process; every process must call it."""
        return {"random": gather_objects(random_state())}

    @override
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Keep the states of the generators until the first step restores them."""
        self._random = list(state_dict["random"])

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals in place of Lightning, whose handler would communicate with other processes."""
        self._received = None
        self._saved_step = self._seen_step = trainer.global_step
        _begin_next_epoch(trainer)
        if threading.current_thread() is threading.main_thread():
            self._handlers = {
                number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)
            }

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Restore the random number generators; a process without a state in the checkpoint keeps its own."""
        if self._random is not None and trainer.global_rank < len(self._random):
            set_random_state(self._random[trainer.global_rank])
        self._random = None

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        """Save if a checkpoint is due or a signal came, unless a validation follows."""
        self._stepped, self._seen_step = trainer.global_step > self._seen_step, trainer.global_step
        loop = trainer.fit_loop
        assert loop._data_fetcher is not None  # it has just provided a batch
        validates = trainer.is_last_batch or loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
        if not validates:
            self._save_if_due(trainer, pl_module)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after a validation within an epoch; one at its end is followed by ``on_train_epoch_end``."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and not trainer.is_last_batch:
            self._save_if_due(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if a checkpoint is due, training ends or a signal came, after the validation if there was one."""
        stop, steps, epochs = self._must_stop(trainer), trainer.max_steps, trainer.max_epochs or -1
        ends = trainer.should_stop or 0 <= steps <= trainer.global_step or 0 < epochs <= trainer.current_epoch + 1
        if stop or ends or self.every_n_steps is None or self._is_due(trainer):
            self._save(trainer, pl_module)
        if stop:
            self._stop(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the signal handlers, before Lightning restores its own."""
        self._restore_handlers()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the signal handlers also if training fails."""
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal until the step is done; interrupt at once on a second Ctrl-C."""
        if self._received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = number

    def _must_stop(self, trainer: Trainer) -> bool:
        """Whether any process received a signal."""
        own = self._received is not None
        return trainer.strategy.reduce_boolean_decision(own, all=False) if trainer.world_size > 1 else own

    def _save_if_due(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after an optimizer step if a checkpoint is due or a signal came; stop after a signal."""
        if not self._stepped:
            return
        stop = self._must_stop(trainer)
        if stop or self._is_due(trainer):
            self._save(trainer, pl_module)
        if stop:
            self._stop(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        return self.every_n_steps is not None and trainer.global_step - self._saved_step >= self.every_n_steps

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        broken = _nonfinite_weights(pl_module)
        if broken:
            where = f"weights: NaN or infinity in {broken[0]} after step {trainer.global_step}"
            kept = f"{self.path} stays as it was after step {self._saved_step}; " if self.path.is_file() else ""
            raise UserError(f"{where}; {kept}lower the learning rate")
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_step = trainer.global_step

    def _stop(self, trainer: Trainer) -> None:
        number = signal.Signals(self._received or signal.SIGTERM)
        where = "" if trainer.fast_dev_run else f", written to {self.path}"  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            print(f"stopped by {number.name} after step {trainer.global_step}{where}", file=sys.stderr, flush=True)
        raise SystemExit(128 + number)


def _nonfinite_weights(module: LightningModule) -> list[str]:
    """Names of the parameters with a NaN or an infinity."""
    return [name for name, value in module.named_parameters() if not bool(torch.isfinite(value).all())]


def _begin_next_epoch(trainer: Trainer) -> None:
    """Begin the next epoch if the checkpoint was written at the end of one.

    With ``max_steps``, Lightning 2.6 would first run that epoch again, without a step, and count it twice.
    """
    loop = trainer.fit_loop
    if loop.restarting and loop.restarted_on_epoch_end:
        loop.restarting = False
        loop.epoch_loop.restarting = False
        loop.reset_restart_stage()
        loop.epoch_loop.reset_restart_stage()
        loop.epoch_progress.increment_completed()
