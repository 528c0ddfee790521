"""Search with re-ranking, in the parts of an index.

Shapes: N = items, n = items of a part, Q = queries, D = embedding size, K = neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metric_module.checks import check_count, check_embeddings
from metric_module.distances import Distance
from metric_module.errors import UserError
from metric_module.evaluation.exact.any_distance import exact_distance
from metric_module.evaluation.exact.nearest import nearest
from metric_module.evaluation.exact.threads import in_threads
from metric_module.evaluation.k_reciprocal import ReciprocalGallery
from metric_module.evaluation.rerank_methods import KReciprocal, Method, QueryExpansion, Rerank, rerank_methods
from metric_module.evaluation.reranking import expanded
from metric_module.inference.arguments import Neighbours


def one_method(rerank: Rerank, name: str) -> Method | None:
    """Read the method of a search; None if there is none.

    Args:
        rerank: A method, or its settings by its name.
        name: Name of the argument, for a message.

    Raises:
        UserError: If it is none of the methods, or there are several.
    """
    methods = rerank_methods(rerank, name)
    if len(methods) > 1:
        raise UserError(f"{name}: expected one method for a search, got {' and '.join(methods)}")
    return next(iter(methods.values()), None)


class RerankedSearch:
    """Search of a gallery in parts, by a method of re-ranking; what can be computed without queries is kept.

    Args:
        parts: Consecutive parts of the gallery ``(n, D)``, at least one item in all.
        distance: The distance.
        method: The settings of the method.

    Raises:
        UserError: If the gallery is too large, or has a value that is not finite.
    """

    def __init__(self, parts: Sequence[Tensor], distance: Distance, method: Method) -> None:
        self.method = method
        self.size = sum(map(len, parts))
        self._parts, self._distance = list(parts), distance
        self._encoded: ReciprocalGallery | None = None
        if isinstance(method, KReciprocal):
            self._encoded = ReciprocalGallery(torch.cat(self._parts), method, distance)

    def search(self, query: Tensor, k: int) -> Neighbours:
        """Find the first items of each query after re-ranking.

        Args:
            query: Queries ``(Q, D)``.
            k: Number of neighbours.

        Returns:
            Positions in the new order, and the original distances, which need not ascend.

        Raises:
            UserError: If k is less than 1, or a query is not finite or has another width.
        """
        check_count("k", k)
        check_embeddings("queries", query, self._parts[0].shape[1])
        query, count = query.detach().cpu(), min(k, self.size)
        positions = (
            self._expanded(query, k) if self._encoded is None else self._by_encoding(self._encoded, query, count)
        )
        measure = exact_distance(self._distance, query.device)
        pairs = zip(query.double()[:, None], positions, strict=True)
        distances = [measure(row, self._items(chosen).double())[0] for row, chosen in pairs]
        return Neighbours(torch.stack(distances) if distances else torch.empty(0, count).double(), positions)

    def _by_encoding(self, encoded: ReciprocalGallery, query: Tensor, count: int) -> Tensor:
        def first(rows: Tensor) -> Tensor:
            """Order all items for one block of queries, and keep the first: ``(A, K)``."""
            final = encoded.final(rows, torch.full((len(rows),), -1))  # (A, N)
            return final.sort(dim=1, stable=True).indices[:, :count]

        return torch.cat(in_threads(first, torch.split(query, encoded.rows_at_once)))

    def _expanded(self, query: Tensor, k: int) -> Tensor:
        assert isinstance(self.method, QueryExpansion)
        near = nearest(query, self._parts, self.method.k, self._distance)
        again = expanded(query, near.positions, self._items, self.method.alpha)  # (Q, D)
        return nearest(again, self._parts, k, self._distance).positions

    def _items(self, positions: Tensor) -> Tensor:
        """Read items ``(n, D)`` at positions ``(n,)``; the first one in place of -1."""
        place = positions.clamp(min=0)  # (n,)
        found = torch.empty(len(place), self._parts[0].shape[1], dtype=self._parts[0].dtype)  # (n, D)
        first = 0
        for part in self._parts:
            here = (place >= first) & (place < first + len(part))  # (n,)
            found[here] = part[place[here] - first]
            first += len(part)
        return found
