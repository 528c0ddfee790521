"""Detection of collapsed embeddings and of steps that teach nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.miners import Miner
from metric_module.module import TripletModule
from metric_module.training.health import Health, collapsed_loss

_ADVICE = (
    "hard negatives early in training do this (Schroff et al. 2015, section 3.2): try miner=semihard or "
    "miner=distance_weighted, criterion=soft_triplet, a lower optimizer.lr, or larger batches"
)


class CollapseGuard(Callback):
    """A guard that detects collapse, and counts steps without an active triplet and anchors without a pair.

    Embeddings have **collapsed** when they lie so close together that every triplet loses the margin: for ``patience``
    steps in a row, their spread is below a tenth of the largest so far (or a thousandth of their length), and the mean
    loss of a triplet is within a tenth of the margin, or of its softplus. A **step without any active triplet** leaves
    the weights as they are. A **lone anchor** has no positive or no negative in its batch. Steps and anchors are
    counted; ``train/empty_steps``, ``train/lone_anchors`` (a share) and ``train/spread`` are logged with each epoch.

    Args:
        action: Reaction to collapse: ``warn`` once, ``stop``, or ``switch`` to ``fallback`` for the rest of training.
        fallback: The miner to switch to; required for ``switch``, and not allowed otherwise.
        patience: Number of consecutive steps that must look collapsed.

    Raises:
        UserError: If an argument is not allowed; while training, after a collapse, if the action is ``stop``.
    """

    def __init__(
        self, action: Literal["warn", "stop", "switch"] = "warn", fallback: Miner | None = None, patience: int = 10
    ) -> None:
        if action not in {"warn", "stop", "switch"}:
            raise UserError(f"collapse_guard.action: expected warn, stop or switch, got {action!r}")
        if (action == "switch") != (fallback is not None):
            raise UserError(
                "collapse_guard.fallback: expected a miner if and only if action=switch; "
                "give miner@callbacks.collapse_guard.fallback=semihard"
            )
        if patience < 1:
            raise UserError(f"collapse_guard.patience: expected an integer >= 1, got {patience}")
        self.action = action
        self.fallback = fallback
        self.patience = patience
        self._state: dict[str, Any] = {
            "largest": 0.0,
            "streak": 0,
            "collapsed": False,
            "steps": 0,
            "empty": 0,
            "run": 0,
        }
        self._epoch = {"lone": 0, "anchors": 0}

    @override
    def state_dict(self) -> dict[str, Any]:
        """Counts of this epoch and of the whole training."""
        return {**self._state, "epoch": dict(self._epoch)}

    @override
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from the counts of a checkpoint."""
        self._state = {name: state_dict[name] for name in self._state}
        self._epoch = dict(state_dict["epoch"])

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the fallback miner after a resume, if training had switched to it."""
        if self._state["collapsed"] and self.action == "switch" and isinstance(pl_module, TripletModule):
            pl_module.criterion.substitute = self.fallback

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        """Update the counts, and react to collapse."""
        if not isinstance(pl_module, TripletModule) or pl_module.health is None:
            return
        health = pl_module.health
        state = self._state
        state["steps"] += 1
        self._epoch["lone"] += int(health.lone)
        self._epoch["anchors"] += int(health.lone + health.anchors)
        empty = int(health.active) == 0
        state["empty"] += empty
        state["run"] = state["run"] + 1 if empty else 0
        if state["run"] == 50:
            rank_zero_warn(
                f"no triplet had a loss in the last 50 steps (to step {trainer.global_step}): nothing is learned; "
                "a larger margin, miner=all or larger batches find more, unless this is the end of training"
            )
        state["largest"] = max(state["largest"], float(health.spread))
        state["streak"] = state["streak"] + 1 if self._looks_collapsed(health, pl_module) else 0
        if state["streak"] >= self.patience and not state["collapsed"]:
            state["collapsed"] = True
            self._act(trainer, pl_module, health)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the counts of the epoch, and warn if most anchors had no positive or no negative."""
        if not isinstance(pl_module, TripletModule) or pl_module.health is None:
            return
        lone = self._epoch["lone"] / max(1, self._epoch["anchors"])
        pl_module.log("train/empty_steps", float(self._state["empty"]))
        pl_module.log("train/lone_anchors", lone)
        pl_module.log("train/spread", pl_module.health.spread)
        if lone > 0.5:
            rank_zero_warn(
                f"{lone:.0%} of the anchors of this epoch had no positive or no negative in their batch: "
                "use batches of P classes x K samples (datamodules.PKSampler)"
            )
        self._epoch = {"lone": 0, "anchors": 0}

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the number of steps without an active triplet."""
        empty, steps = self._state["empty"], self._state["steps"]
        if empty:
            rank_zero_info(f"{empty} of {steps} steps had no triplet with a loss, and left the weights as they were")

    def _looks_collapsed(self, health: Health, module: TripletModule) -> bool:
        criterion = module.criterion
        expected = collapsed_loss(criterion.loss, criterion.margin)
        near = abs(float(health.loss) - expected) <= 0.1 * expected
        spread = float(health.spread)
        return near and (spread < 0.1 * self._state["largest"] or spread < 1e-3 * float(health.size))

    def _act(self, trainer: Trainer, module: TripletModule, health: Health) -> None:
        spread = f"spread {float(health.spread):.3g} (it was {self._state['largest']:.3g})"
        loss = f"loss {float(health.loss):.3g} at margin {module.criterion.margin:.3g}"
        message = f"embeddings have collapsed by step {trainer.global_step}: {spread}, {loss}; {_ADVICE}"
        if self.action == "stop":
            raise UserError(message)
        if self.action == "switch":
            module.criterion.substitute = self.fallback
            message += f"; from now on {type(self.fallback).__name__} mines"
        rank_zero_warn(message)
