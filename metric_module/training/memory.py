"""Past embeddings as further references.

Shapes: B = rows of the batch, S = size of the memory, F = its filled part, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.functional import at_least_float32


class CrossBatchMemory(nn.Module):
    """The newest embeddings of training, in a ring, as references beside the batch (Wang et al. 2020, section 3.2).

    References of a batch are the batch itself, with gradient, followed by the memory's filled part, without: embeddings
    drift slowly, so that those of the last batches still stand for their samples. Like the paper, a warm-up leaves the
    memory out until the embeddings have settled; unlike it, the memory fills up meanwhile.

    Everything that changes is a buffer, so a checkpoint holds all of it. With several processes, DDP hands the first
    one's memory to the others before each step.

    Args:
        size: How many embeddings it holds, S.
        embedding_dim: Size D of an embedding.
        warmup_steps: For so many batches it only fills.

    Raises:
        UserError: If an argument is out of range.

    Example:
        >>> memory = CrossBatchMemory(size=3, embedding_dim=1)
        >>> for id in range(4):
        ...     together = memory(torch.tensor([[float(id)]]), labels=torch.tensor([7]), ids=torch.tensor([id]))
        >>> together["reference"].flatten().tolist(), together["reference_ids"].tolist()
        ([3.0, 0.0, 1.0, 2.0], [3, 0, 1, 2])
    """

    embeddings: Tensor
    labels: Tensor
    ids: Tensor
    seen: Tensor
    steps: Tensor

    def __init__(self, size: int, embedding_dim: int, warmup_steps: int = 0) -> None:
        super().__init__()
        given = {"size": size, "embedding_dim": embedding_dim, "warmup_steps": warmup_steps}
        for name, value in given.items():
            least = 0 if name == "warmup_steps" else 1
            if type(value) is not int or value < least:
                raise UserError(f"memory.{name}: expected an integer >= {least}, got {value!r}")
        self.size = size
        self.warmup_steps = warmup_steps
        self.register_buffer("embeddings", torch.zeros(size, embedding_dim))  # (S, D)
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))  # (S,)
        self.register_buffer("ids", torch.zeros(size, dtype=torch.int64))  # (S,)
        # How many samples and how many batches ever came in: the ring's next place is seen % S.
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @override
    def forward(self, embeddings: Tensor, labels: Tensor, ids: Tensor | None = None) -> dict[str, Tensor]:
        """Put a batch and the past together; while training, remember the batch for the next ones.

        Args:
            embeddings: Finite, ``(B, D)``.
            labels: Integers ``(B,)``.
            ids: Identity of each sample, integers ``(B,)``. None: each is taken for a sample never seen before.

        Returns:
            Arguments of the criterion: ``reference`` ``(B + F, D)``, ``reference_labels`` and ``reference_ids``
            ``(B + F,)``, ``ids`` ``(B,)``.
        """
        if ids is None:
            # Below 0, where no data set counts, and never the same twice.
            ids = -1 - self.seen - torch.arange(len(labels), device=labels.device)  # (B,)
        filled = min(int(self.seen), self.size) if int(self.steps) >= self.warmup_steps else 0
        together = {
            "reference": torch.cat([embeddings, self.embeddings[:filled]]),
            "reference_labels": torch.cat([labels, self.labels[:filled]]),
            "ids": ids,
            "reference_ids": torch.cat([ids, self.ids[:filled]]),
        }
        if self.training:
            self._remember(embeddings.detach(), labels, ids)
        return together

    def _remember(self, embeddings: Tensor, labels: Tensor, ids: Tensor) -> None:
        """Write a batch over the oldest; of one larger than the memory, its last rows."""
        rows = torch.arange(len(labels), device=labels.device)[-self.size :]  # (min(B, S),)
        place = (self.seen + rows) % self.size
        self.embeddings.index_copy_(0, place, embeddings[-self.size :].to(self.embeddings.dtype))
        self.labels.index_copy_(0, place, labels[-self.size :])
        self.ids.index_copy_(0, place, ids[-self.size :])
        self.seen += len(labels)
        self.steps += 1

    def check_width(self, encoder: nn.Module) -> None:
        """Accept an encoder whose embeddings fit in.

        Raises:
            UserError: If its ``embedding_dim`` is another, or it has none.
        """
        own, given = self.embeddings.shape[1], getattr(encoder, "embedding_dim", None)
        if own != given:
            raise UserError(f"memory.embedding_dim: expected {given} as in {type(encoder).__name__}, got {own}")

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Stay in float32 or better when the module around it is cast to half precision."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.embeddings = at_least_float32(self.embeddings)
        return self
