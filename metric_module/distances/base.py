"""The base of every distance."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

Measure = Callable[[Tensor, Tensor], Tensor]
"""``measure(query (A, D), reference (M, D))`` gives distances ``(A, M)``."""


class Distance(nn.Module):
    """Distances between the rows of two sets; smaller is closer.

    A custom distance is one subclass with a differentiable :meth:`forward`. Learnable parameters are allowed and get
    their gradient. The result for one pair must not depend on the other rows, because the criterion calls it block by
    block.

    Example:
        >>> class Chebyshev(Distance):
        ...     def forward(self, query, reference):
        ...         return (query[:, None] - reference[None]).abs().amax(dim=-1)
        >>> Chebyshev()(torch.zeros(1, 2), torch.tensor([[3.0, -4.0]])).tolist()
        [[4.0]]
    """

    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        """Distances between each query and each reference.

        Args:
            query: Rows ``(A, D)``.
            reference: Rows ``(M, D)``.

        Returns:
            Distances ``(A, M)``.

        Raises:
            NotImplementedError: If a subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(query, reference) -> (A, M)")


def on_device(distance: Distance, device: torch.device) -> tuple[Measure, list[Tensor]]:
    """The distance as a function of rows on ``device``, and its learnable tensors there.

    They are the distance and its parameters themselves, unless these are on another type of device, as when the CPU
    computes for a device without float64. Then they are copies through which the gradient flows back.

    Args:
        distance: Parameters and buffers may be anywhere.
        device: Where the rows are.
    """
    held = {**dict(distance.named_parameters()), **dict(distance.named_buffers())}
    if any(part.device.type != device.type for part in held.values()):
        held = {name: part.to(device) for name, part in held.items()}
        return partial(_measure, distance, held), [part for part in held.values() if part.requires_grad]
    return distance, [part for part in held.values() if part.requires_grad]


def _measure(distance: Distance, tensors: dict[str, Tensor], query: Tensor, reference: Tensor) -> Tensor:
    """Distances ``(A, M)`` with other tensors in the place of the distance's own."""
    result: Tensor = functional_call(distance, tensors, (query, reference))
    return result
