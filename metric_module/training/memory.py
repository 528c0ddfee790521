"""Cross-batch memory: embeddings of past batches as additional references.

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
    """A ring buffer of the newest embeddings, as references in addition to the batch (Wang et al. 2020, section 3.2).

    References of a batch are the batch itself, with gradient, followed by the memory, without gradient: embeddings
    drift slowly, so those of the last batches still represent their samples. As in the paper, the memory is not used
    during a warm-up, until the embeddings have settled; unlike in the paper, it is filled during the warm-up.

    The whole state is in buffers, so a checkpoint holds all of it. With several processes, DDP copies the first one's
    memory to the others before each step.

    Args:
        size: Number S of embeddings that it holds.
        embedding_dim: Size D of an embedding.
        warmup_steps: Number of batches during which it is only filled.

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
        # Numbers of samples and batches so far: the next position to write is seen % S.
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @override
    def forward(self, embeddings: Tensor, labels: Tensor, ids: Tensor | None = None) -> dict[str, Tensor]:
        """Append the memory to a batch; in training, also write the batch into the memory.

        Args:
            embeddings: Finite, ``(B, D)``.
            labels: Integers ``(B,)``.
            ids: Identity of each sample, integers ``(B,)``. None: every sample gets a new id.

        Returns:
            Arguments of the criterion: ``reference`` ``(B + F, D)``, ``reference_labels`` and ``reference_ids``
            ``(B + F,)``, ``ids`` ``(B,)``.
        """
        if ids is None:
            # Negative ids, which no data set has, and different ones in every batch.
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
        """Overwrite the oldest embeddings with a batch, or with the last rows of one larger than the memory."""
        rows = torch.arange(len(labels), device=labels.device)[-self.size :]  # (min(B, S),)
        place = (self.seen + rows) % self.size
        self.embeddings.index_copy_(0, place, embeddings[-self.size :].to(self.embeddings.dtype))
        self.labels.index_copy_(0, place, labels[-self.size :])
        self.ids.index_copy_(0, place, ids[-self.size :])
        self.seen += len(labels)
        self.steps += 1

    def check_width(self, encoder: nn.Module) -> None:
        """Accept an encoder whose embeddings have the memory's size D.

        Args:
            encoder: A module with ``embedding_dim``.

        Raises:
            UserError: If its ``embedding_dim`` is missing or differs.
        """
        own, given = self.embeddings.shape[1], getattr(encoder, "embedding_dim", None)
        if own != given:
            raise UserError(f"memory.embedding_dim: expected {given} as in {type(encoder).__name__}, got {own}")

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Keep the embeddings in float32 or better when the module is cast to half precision."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.embeddings = at_least_float32(self.embeddings)
        return self
