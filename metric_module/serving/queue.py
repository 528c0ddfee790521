"""One queue in front of one model: requests wait, and a worker embeds the items of all that are there as one batch.

Legend: N = items of a request, B = items of a batch, D = embedding size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from metric_module.errors import UserError
from metric_module.inference import Embedder

BATCH_SIZE = 32
"""Number of items at which no further request is added to a batch."""


class RefusedError(UserError):
    """A request that is not answered.

    Args:
        message: One line for the client.
        status_code: The status of HTTP.
    """

    def __init__(self, message: str, status_code: int = 400) -> None:
        super().__init__(message)
        self.status_code = status_code


class BatchQueue:
    """Reads items in threads, and embeds those of all requests in batches, one batch at a time.

    It does not wait for a fuller batch: a batch is what arrived while the one before it was embedded.

    Args:
        embedder: The model.
        read: Reads the items of a request as encoder inputs. What it raises concerns that request alone: nothing of it
            is queued.
        limit: Largest number of items that are read, wait or are embedded at a time.
    """

    def __init__(self, embedder: Embedder, read: Callable[[Sequence[Any]], list[Any]], limit: int = 1024) -> None:
        self._embedder, self._read, self._limit, self._items = embedder, read, limit, 0
        self._readers, self._model = ThreadPoolExecutor(4), ThreadPoolExecutor(1)
        self._queue: asyncio.Queue[tuple[list[Any], asyncio.Future[Tensor]]] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None

    async def embed(self, items: Sequence[Any]) -> Tensor:
        """Embed the items of one request.

        Args:
            items: N items.

        Returns:
            Embeddings, float32 ``(N, D)``.

        Raises:
            RefusedError: If the queue is full, with status 503; otherwise what reading and embedding raise.
        """
        if self._items + len(items) > self._limit:
            raise RefusedError(f"overloaded: {self._items} of at most {self._limit} items wait; try again later", 503)
        self._items += len(items)
        try:
            loop = asyncio.get_running_loop()
            self._worker = self._worker or loop.create_task(self._work())
            result: asyncio.Future[Tensor] = loop.create_future()
            self._queue.put_nowait((await loop.run_in_executor(self._readers, self._read, items), result))
            return await result
        finally:
            self._items -= len(items)

    async def _work(self) -> None:
        """Embed batches until the server ends."""
        while True:
            batch = [await self._queue.get()]
            while sum(len(inputs) for inputs, _ in batch) < BATCH_SIZE and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            requests = [inputs for inputs, _ in batch]
            found = await asyncio.get_running_loop().run_in_executor(self._model, self._embedded, requests)
            for (_, result), one in zip(batch, found, strict=True):
                if not result.done():  # done: its request was cancelled
                    (result.set_exception if isinstance(one, Exception) else result.set_result)(one)

    def _embedded(self, requests: list[list[Any]]) -> list[Any]:
        """Embed the inputs of several requests as one batch; if that fails, each request by itself."""
        inputs = [one for request in requests for one in request]
        try:
            batch = torch.stack(inputs) if isinstance(inputs[0], Tensor) else inputs  # (B, ...)
            embeddings = self._embedder.embed(batch)  # (B, D)
            return [*torch.split(embeddings, [len(request) for request in requests])]
        except Exception as error:
            return [error] if len(requests) == 1 else [self._embedded([request])[0] for request in requests]
