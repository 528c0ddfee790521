"""Batches that name also the samples of a later batch, so that a worker can fetch them while it decodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any

from datamodules.sampling.neighbourhoods import AHEAD, LAG


class Positions(list[int]):
    """Positions of a batch in a data set, and of a later one.

    Args:
        now: Positions of the batch.
        later: Positions that will be needed next.
    """

    def __init__(self, now: Iterable[int] = (), later: Sequence[int] = ()) -> None:
        super().__init__(now)
        self.later = list(later)


class ReadAhead:
    """Batches of positions, in the same order, each with those of the batch that the same worker loads next.

    Args:
        batches: Batch sampler.
        workers: Worker processes, which take turns.

    Example:
        >>> [(batch, batch.later) for batch in ReadAhead([[0], [1], [2]], workers=2)]
        [([0], [2]), ([1], []), ([2], [])]
    """

    def __init__(self, batches: Any, workers: int) -> None:
        self.batches: Sized = batches
        # Class neighbourhoods bound what is drawn ahead. With very many workers another one may load the later batch,
        # which finds it in the cache all the same.
        self.ahead = max(1, min(max(1, workers), LAG - 1 - AHEAD * workers))

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.batches)

    def __iter__(self) -> Iterator[Positions]:
        drawn: Iterator[Sequence[int]] = iter(self.batches)  # type: ignore[call-overload]
        waiting = deque(islice(drawn, self.ahead))
        for later in drawn:
            waiting.append(later)
            yield Positions(waiting.popleft(), later)
        yield from map(Positions, waiting)
