"""Base class of every distance, and how a distance follows from the Euclidean one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metric_module.checks import check_embeddings
from metric_module.errors import UserError

Measure = Callable[[Tensor, Tensor], Tensor]
"""``measure(query (A, D), reference (M, D))`` returns distances ``(A, M)``."""


@dataclass(frozen=True)
class EuclideanForm:
    """Expression of a distance through the Euclidean one: ``d(q, r) = factor * |f(q) - f(r)|``, or its square.

    Args:
        squared: Whether the Euclidean distance is squared before it is multiplied.
        factor: Greater than 0.
        rows: The map f, from rows ``(N, D)`` to rows ``(N, E)`` in float64; None leaves them as they are. Equal rows
            must have equal images, to the last bit, whatever the other rows.

    Raises:
        UserError: If the factor is not greater than 0.

    Example:
        >>> EuclideanForm(squared=True, factor=0.5).of(torch.tensor([2.0])).tolist()
        [2.0]
    """

    squared: bool = False
    factor: float = 1.0
    rows: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        """Check the factor."""
        if not self.factor > 0:
            raise UserError(f"Euclidean form: expected a factor > 0, got {self.factor}")

    def map(self, embeddings: Tensor) -> Tensor:
        """Apply f to rows ``(N, D)``: float64 rows ``(N, E)``, or the rows themselves where f is None.

        Raises:
            UserError: If the result is not a finite tensor ``(N, E)``.
        """
        if self.rows is None:
            return embeddings
        mapped = self.rows(embeddings.double())  # (N, E)
        check_embeddings("Euclidean form", mapped)
        return mapped

    def of(self, euclidean: Tensor) -> Tensor:
        """Convert Euclidean distances of mapped rows, of any shape, to this distance."""
        values = euclidean.square() if self.squared else euclidean
        return values if self.factor == 1 else self.factor * values


class Distance(nn.Module):
    """Distances between the rows of two sets; smaller is closer.

    A custom distance is one subclass with a differentiable :meth:`forward`. Learnable parameters are allowed and get
    their gradient. The result for one pair must not depend on the other rows, because the criterion calls it block by
    block.

    A distance that is a function of the Euclidean one may say so in :meth:`euclidean_form`; evaluation is then as fast
    and as exact as under :class:`Euclidean`.

    Example:
        >>> class Chebyshev(Distance):
        ...     def forward(self, query, reference):
        ...         return (query[:, None] - reference[None]).abs().amax(dim=-1)
        >>> Chebyshev()(torch.zeros(1, 2), torch.tensor([[3.0, -4.0]])).tolist()
        [[4.0]]
    """

    def __init_subclass__(cls) -> None:
        """Drop an inherited Euclidean form where ``forward`` is overridden below it: it belongs to another formula."""
        super().__init_subclass__()
        nearest = next(base for base in cls.__mro__ if {"forward", "euclidean_form"} & vars(base).keys())
        if "euclidean_form" not in vars(nearest):
            cls.euclidean_form = Distance.euclidean_form  # type: ignore[method-assign]

    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute the distances between each query and each reference.

        Args:
            query: Rows ``(A, D)``.
            reference: Rows ``(M, D)``.

        Returns:
            Distances ``(A, M)``.

        Raises:
            NotImplementedError: If a subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(query, reference) -> (A, M)")

    def euclidean_form(self) -> EuclideanForm | None:
        """Return how this distance follows from the Euclidean one, or None if it does not.

        A subclass that overrides :meth:`forward` alone does not inherit the form of its parent.
        """
        return None


def on_device(distance: Distance, device: torch.device) -> tuple[Measure, list[Tensor]]:
    """Return the distance as a function of rows on ``device``, and its learnable tensors there.

    These are the distance and its own parameters, unless they are on another type of device, as when the CPU computes
    for a device without float64. Then they are copies through which the gradient flows back.

    Args:
        distance: The distance; its parameters and buffers may be on any device.
        device: Device of the rows.

    Returns:
        The function, and the tensors that require a gradient.
    """
    held = {**dict(distance.named_parameters()), **dict(distance.named_buffers())}
    if any(part.device.type != device.type for part in held.values()):
        held = {name: part.to(device) for name, part in held.items()}
        return partial(_measure, distance, held), [part for part in held.values() if part.requires_grad]
    return distance, [part for part in held.values() if part.requires_grad]


def _measure(distance: Distance, tensors: dict[str, Tensor], query: Tensor, reference: Tensor) -> Tensor:
    """Compute distances ``(A, M)`` with ``tensors`` in place of the distance's own parameters and buffers."""
    result: Tensor = functional_call(distance, tensors, (query, reference))
    return result
