"""The base of every distance."""

from __future__ import annotations

from torch import Tensor, nn


class Distance(nn.Module):
    """Distances between the rows of two sets; smaller is closer.

    A custom distance is one subclass with a differentiable :meth:`forward`. Learnable parameters are allowed and get
    their gradient. The result for one pair must not depend on the other rows, because the criterion calls it block by
    block.

    Example:
        >>> import torch
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
