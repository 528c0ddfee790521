"""Base class of every distance, and how a distance follows from the Euclidean one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from typing_extensions import override

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


class Draft(NamedTuple):
    """Distances of which some may still have to be computed again, more accurately.

    Whether there are any is known on the device of the embeddings. The criterion reads it together with other values,
    so that the host waits for the device once.

    Attributes:
        unsure: Whether some have to be computed again, bool ``()``; None: none of them.
        finish: Returns the distances ``(A, M)``, with their gradient, given the value of ``unsure``.
    """

    unsure: Tensor | None
    finish: Callable[[bool], Tensor]

    def distances(self) -> Tensor:
        """Read :attr:`unsure` and return the distances ``(A, M)``."""
        return self.finish(self.unsure is not None and bool(self.unsure))


class Distance(nn.Module):
    """Distances between the rows of two sets; smaller is closer.

    A custom distance is one subclass with a differentiable :meth:`forward`. Learnable parameters are allowed and get
    their gradient. The result for one pair must not depend on the other rows, because the criterion calls it block by
    block.

    A distance that is a function of the Euclidean one may say so in :meth:`euclidean_form`; evaluation is then as fast
    and as exact as under :class:`Euclidean`. Two more declarations make mining faster: :attr:`symmetric` and
    :meth:`paired`.

    Attributes:
        symmetric: Whether ``d(q, r) = d(r, q)``. A batch that is its own reference then needs half of the distances.

    Example:
        >>> class Chebyshev(Distance):
        ...     def forward(self, query, reference):
        ...         return (query[:, None] - reference[None]).abs().amax(dim=-1)
        >>> Chebyshev()(torch.zeros(1, 2), torch.tensor([[3.0, -4.0]])).tolist()
        [[4.0]]
    """

    symmetric = False

    def __init_subclass__(cls) -> None:
        """Drop what is inherited with a ``forward`` that is overridden below it: it belongs to another formula."""
        super().__init_subclass__()
        for name in ("euclidean_form", "draft", "paired", "paired_gradient", "symmetric"):
            above = {"forward", "paired"} if name == "paired_gradient" else {"forward"}
            nearest = next(base for base in cls.__mro__ if {*above, name} & vars(base).keys())
            if name not in vars(nearest):
                setattr(cls, name, vars(Distance)[name])

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

    def draft(self, query: Tensor, reference: Tensor) -> Draft:
        """Compute the distances up to what the host must decide; see :class:`Draft`.

        Args:
            query: Rows ``(A, D)``.
            reference: Rows ``(M, D)``; the same tensor as ``query`` where a set is compared with itself.
        """
        return Draft(None, lambda _: self(query, reference))

    def paired(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute the distance of each query to the reference in the same place; a subclass need not define it.

        Only its gradient is used: where single pairs matter, it saves the gradient of all ``(A, M)``. A subclass that
        overrides :meth:`forward` alone does not inherit it.

        Args:
            query: Rows ``(..., D)``.
            reference: Rows ``(..., D)``, in a shape that broadcasts with that of the queries.

        Returns:
            Distances ``(...)``, differentiable.

        Raises:
            NotImplementedError: If a subclass does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define paired(query, reference)")

    def paired_gradient(
        self, query: Tensor, reference: Tensor, slope: Tensor, learnable: Sequence[Tensor]
    ) -> tuple[Tensor | None, ...]:
        """Compute the gradient of ``(slope * paired(query, reference)).sum()``.

        Args:
            query: Rows ``(A, 1, D)``.
            reference: Rows ``(A, S, D)``.
            slope: Derivative by each distance, ``(A, S)``.
            learnable: Parameters of the distance that get a gradient.

        Returns:
            The gradients by query, reference and each of the parameters; None where one has no effect.
        """
        leaves = (query.detach().requires_grad_(), reference.detach().requires_grad_())
        with torch.enable_grad():
            values = self.paired(*leaves)  # (A, S)
        return torch.autograd.grad(values, (*leaves, *learnable), slope, allow_unused=True)

    @property
    def has_pairs(self) -> bool:
        """Whether :meth:`paired` is defined."""
        return type(self).paired is not Distance.paired


def on_device(distance: Distance, device: torch.device) -> tuple[Distance, list[Tensor]]:
    """Return the distance for rows on ``device``, and its learnable tensors there.

    These are the distance and its own parameters, unless they are on another type of device, as when the CPU computes
    for a device without float64. Then they are copies through which the gradient flows back.

    Args:
        distance: The distance; its parameters and buffers may be on any device.
        device: Device of the rows.

    Returns:
        The distance, and the tensors that require a gradient.
    """
    held = {**dict(distance.named_parameters()), **dict(distance.named_buffers())}
    if any(part.device.type != device.type for part in held.values()):
        held = {name: part.to(device) for name, part in held.items()}
        return _Moved(distance, held), [part for part in held.values() if part.requires_grad]
    return distance, [part for part in held.values() if part.requires_grad]


class _Moved(Distance):
    """A distance with other tensors in place of its own parameters and buffers.

    Args:
        distance: The distance.
        tensors: The tensors, by name.
    """

    def __init__(self, distance: Distance, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self._call = partial(_measure, distance, tensors)

    @override
    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute distances ``(A, M)``."""
        return self._call(query, reference)


def _measure(distance: Distance, tensors: dict[str, Tensor], query: Tensor, reference: Tensor) -> Tensor:
    result: Tensor = functional_call(distance, tensors, (query, reference))
    return result
