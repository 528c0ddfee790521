from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metric_module.errors import UserError
from metric_module.serving.queue import BATCH_SIZE, BatchQueue, RefusedError
from tests.helpers.serving import vector_embedder


class Watched(nn.Module):
    """Doubles its inputs, records the sizes of batches, and waits for permission."""

    embedding_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.go = threading.Event()
        self.go.set()

    def forward(self, inputs: Tensor) -> Tensor:
        self.sizes.append(len(inputs))
        assert self.go.wait(10)
        if bool((inputs == 13).any()):
            raise UserError("thirteen")
        return 2 * inputs


def queue_of(encoder: nn.Module, limit: int = 1024) -> BatchQueue:
    embedder = vector_embedder(encoder)

    def read(items: Sequence[Any]) -> list[Any]:
        if "bad" in items:
            raise RefusedError("item 0: bad")
        return [embedder.read([item] * 3) for item in items]

    return BatchQueue(embedder, read, limit)


async def after_a_first_batch(
    encoder: Watched, queue: BatchQueue, requests: Sequence[Sequence[Any]], refused: int = 0
) -> list[Any]:
    """Send one item, and all requests while it is embedded."""
    encoder.go.clear()
    first = asyncio.create_task(queue.embed([0]))
    while not encoder.sizes:
        await asyncio.sleep(0.001)
    others = [asyncio.create_task(queue.embed(items)) for items in requests]
    waiting = sum("bad" not in items for items in requests) - refused
    while queue._queue.qsize() < waiting:
        await asyncio.sleep(0.001)
    encoder.go.set()
    results = await asyncio.gather(*others, return_exceptions=True)
    assert (await first).tolist() == [[0, 0, 0]]
    return results


def test_requests_that_wait_become_one_batch_and_each_gets_its_own_rows() -> None:
    encoder = Watched()
    results = asyncio.run(after_a_first_batch(encoder, queue_of(encoder), [[1], [2, 3], [4]]))
    assert encoder.sizes == [1, 4]
    assert [rows.tolist() for rows in results] == [[[2] * 3], [[4] * 3, [6] * 3], [[8] * 3]]


def test_a_full_batch_takes_no_further_request() -> None:
    encoder = Watched()
    asyncio.run(after_a_first_batch(encoder, queue_of(encoder), [[1]] * (BATCH_SIZE + 3)))
    assert encoder.sizes == [1, BATCH_SIZE, 3]


def test_an_item_that_cannot_be_read_fails_its_own_request_and_is_not_queued() -> None:
    encoder = Watched()
    one, bad, other = asyncio.run(after_a_first_batch(encoder, queue_of(encoder), [[1], ["bad", 7], [2]]))
    assert encoder.sizes == [1, 2] and one.tolist() == [[2] * 3] and other.tolist() == [[4] * 3]
    assert isinstance(bad, RefusedError) and str(bad) == "item 0: bad"


def test_an_item_that_the_encoder_rejects_fails_its_own_request() -> None:
    encoder = Watched()
    one, bad, other = asyncio.run(after_a_first_batch(encoder, queue_of(encoder), [[1], [13], [2, 3]]))
    assert encoder.sizes[:2] == [1, 4] and sorted(encoder.sizes[2:]) == [1, 1, 2]
    assert one.tolist() == [[2] * 3] and other.tolist() == [[4] * 3, [6] * 3]
    assert isinstance(bad, UserError) and str(bad) == "thirteen"


def test_more_items_than_the_limit_are_refused_until_there_is_room() -> None:
    encoder = Watched()
    queue = queue_of(encoder, limit=4)
    _, full, bad = asyncio.run(after_a_first_batch(encoder, queue, [[1, 2], [3, 4], ["bad"]], refused=1))
    assert isinstance(full, RefusedError) and full.status_code == 503
    assert str(full) == "overloaded: 3 of at most 4 items wait; try again later"
    assert isinstance(bad, RefusedError) and bad.status_code == 400


def test_room_is_given_back_after_an_error() -> None:
    async def twice(queue: BatchQueue) -> Tensor:
        for _ in range(3):
            with pytest.raises(RefusedError, match="item 0: bad"):
                await queue.embed(["bad", 1, 2])
        return await queue.embed([1, 2, 3])

    assert torch.equal(
        asyncio.run(twice(queue_of(Watched(), limit=3))), 2 * torch.tensor([[1.0], [2], [3]]).expand(3, 3)
    )


def test_a_cancelled_request_does_not_stop_the_worker() -> None:
    async def cancel(encoder: Watched, queue: BatchQueue) -> Tensor:
        encoder.go.clear()
        first = asyncio.create_task(queue.embed([0]))
        while not encoder.sizes:
            await asyncio.sleep(0.001)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        encoder.go.set()
        return await asyncio.wait_for(queue.embed([1]), 10)

    encoder = Watched()
    assert asyncio.run(cancel(encoder, queue_of(encoder))).tolist() == [[2] * 3]
