"""A schedule of miners."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from metric_module.distances import Distance
from metric_module.errors import UserError
from metric_module.miners.base import SelectingMiner, WindowMiner


class Scheduled(nn.Module):
    """A sequence of miners during training: from step or epoch ``starts[i]``, miner i is used.

    Steps are the criterion's training calls, so with gradient accumulation there are several to an optimizer step.
    Step and epoch are buffers: a checkpoint holds them, and a resumed training continues with the same miner.

    Args:
        miners: Miners of either kind, in the order of their use; the names of a mapping have no effect.
        starts: First step or epoch of each miner: 0, then increasing.
        every: Whether ``starts`` counts in ``"step"`` or ``"epoch"``. :class:`metric_module.TripletModule` sets the
            epoch; a training loop of your own sets it with ``miner.epoch.fill_(epoch)``.

    Raises:
        UserError: If an item is not a miner, or is a schedule itself, the starts do not fit, or ``every`` is unknown.

    Example:
        >>> from metric_module.miners import All, Semihard
        >>> miner = Scheduled([All(), Semihard()], starts=[0, 100])
        >>> miner.step.fill_(100)
        tensor(100)
        >>> miner.current
        Semihard()
    """

    step: Tensor
    epoch: Tensor

    def __init__(
        self,
        miners: Mapping[str, WindowMiner | SelectingMiner] | Sequence[WindowMiner | SelectingMiner],
        starts: Sequence[int],
        every: Literal["step", "epoch"] = "step",
    ) -> None:
        super().__init__()
        parts = list(miners.values()) if isinstance(miners, Mapping) else list(miners)
        for place, part in enumerate(parts):
            if not isinstance(part, WindowMiner | SelectingMiner):
                advice = "; schedules do not nest: list its miners here" if isinstance(part, Scheduled) else ""
                raise UserError(
                    f"scheduled: expected a WindowMiner or SelectingMiner as miner {place}, "
                    f"got {type(part).__name__}{advice}"
                )
        _check_starts(list(starts), len(parts))
        if every not in {"step", "epoch"}:
            raise UserError(f"scheduled: expected every to be step or epoch, got {every!r}")
        self.miners = nn.ModuleList(parts)
        self.starts = tuple(starts)
        self.every = every
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    @property
    def current(self) -> WindowMiner | SelectingMiner:
        """The miner for the current step or epoch."""
        now = int(self.step if self.every == "step" else self.epoch)
        return cast(WindowMiner | SelectingMiner, self.miners[bisect_right(self.starts, now) - 1])

    def check(self, distance: Distance, embeddings: Tensor) -> None:
        """Let every miner check, so that one that starts later is rejected at once.

        Args:
            distance: The criterion's distance.
            embeddings: The references, ``(M, D)``.
        """
        for miner in self.miners:
            cast(WindowMiner | SelectingMiner, miner).check(distance, embeddings)


Miner = WindowMiner | SelectingMiner | Scheduled


def _check_starts(starts: list[int], miners: int) -> None:
    if len(starts) != miners:
        raise UserError(f"scheduled: expected a start for each of {miners} miners, got starts={starts}")
    if any(type(start) is not int for start in starts) or starts[:1] != [0] or sorted(set(starts)) != starts:
        raise UserError(f"scheduled: expected starts that begin with 0 and increase, got starts={starts}")
