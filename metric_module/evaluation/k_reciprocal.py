"""k-reciprocal encodings: each item as weights of the neighbours that have it as a neighbour too.

Shapes: M = gallery items, A = queries or items in a block, D = embedding size, K = neighbours (k1, or M - 1 if that is
less), H = half of K, S = members of a reciprocal set, E = entries of a sparse matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module.distances import Distance, EuclideanForm, SquaredEuclidean
from metric_module.errors import NotComputableError
from metric_module.evaluation.exact.any_distance import checked, exact_distance, form_or_copy
from metric_module.evaluation.exact.nearest import nearest
from metric_module.evaluation.exact.sparse_rows import Entries, SparseRows, joined
from metric_module.evaluation.exact.threads import in_threads
from metric_module.evaluation.rerank_methods import KReciprocal
from metric_module.functional import full_precision

CELLS_AT_ONCE = 1 << 21  # distances of a block, and shared weights that are added up at once
MOST = 100_000  # items of a gallery; time grows with their square
_QUERIES = 1024  # items whose neighbours are found at once
_TILE = 2048  # columns of the gallery that are handed to the distance at once


class ReciprocalGallery:
    """A gallery with the encodings of its items, to which any number of queries are compared; on the CPU.

    Of neighbours at the same distance, the one at the lower position comes first. See
    :func:`~metric_module.evaluation.reranking.k_reciprocal_distances` for the formulas.

    Args:
        gallery: Items ``(M, D)``.
        settings: The numbers of neighbours and the weight.
        distance: The distance; None is Euclidean.

    Attributes:
        rows_at_once: Number of queries whose distances take moderate memory.

    Raises:
        UserError: If there are more than 100,000 items, or one is not finite.
    """

    def __init__(self, gallery: Tensor, settings: KReciprocal, distance: Distance | None = None) -> None:
        if len(gallery) > MOST:
            limit = f"gallery: expected at most {MOST:,} items for k-reciprocal re-ranking, got {len(gallery):,}"
            raise NotComputableError(f"{limit}; its time grows with their square")
        self._settings, self._distance = settings, distance
        self._gallery = gallery.detach().cpu()  # (M, D)
        form = form_or_copy(distance, self._gallery.device)
        self._form = form if isinstance(form, EuclideanForm) else None
        self._measure = checked(SquaredEuclidean() if isinstance(form, EuclideanForm) else form)
        near, self._reach = self._neighbours()  # (M, K), (M,)
        own = torch.arange(len(near))[:, None]  # (M, 1)
        half = near[:, : -(-settings.k1 // 2)]  # (M, H)
        itself = torch.ones_like(own, dtype=torch.bool)
        self._half = torch.cat([own, half], dim=1), torch.cat([itself, _mutual(half)], dim=1)  # (M, H + 1) each
        members, valid = torch.cat([own, near], dim=1), torch.cat([itself, _mutual(near)], dim=1)  # (M, K + 1) each
        self.rows_at_once = max(1, CELLS_AT_ONCE // max(1, len(near), members.shape[1] * self._half[0].shape[1]))
        self._alone, averaged = self._encode_gallery(members, valid)  # (M, M) each
        self._rows, self._sums = averaged, averaged.sums()  # (M, M), (M,)
        rows, columns, values = averaged.all()
        self._columns = SparseRows.of(Entries(columns, rows, values), len(near), len(near))

    def final(self, query: Tensor, item: Tensor) -> Tensor:
        """Compute the final distances of queries to all items.

        Args:
            query: Queries ``(A, D)``.
            item: Position of each in the gallery, -1 for one that is not in it, int64 ``(A,)``.

        Returns:
            Distances, float64 ``(A, M)``.
        """
        query, item = query.detach().cpu(), item.cpu()
        original = self.original(query)  # (A, M)
        known, new = (item >= 0).nonzero()[:, 0], (item < 0).nonzero()[:, 0]  # (A,) together
        parts = [(known, self._rows.pick(item[known]))]
        if len(new):
            parts.append((new, self._encode_new(query[new], original[new])))
        entries = joined([part._replace(rows=rows[part.rows]) for rows, part in parts])
        weight = self._settings.weight
        shared = self._jaccard(SparseRows.of(entries, *original.shape))  # (A, M)
        return shared.mul_(1 - weight).add_(original, alpha=weight)

    def original(self, query: Tensor) -> Tensor:
        """Compute the original distances ``(A, M)``, those of each query ``(A, D)`` divided by its largest one."""
        matrix = torch.empty(len(query), len(self._gallery), dtype=torch.float64)  # (A, M)
        with full_precision("cpu"), torch.no_grad():
            rows = self._mapped(query)
            for first in range(0, len(self._gallery), _TILE):
                tile = self._mapped(self._gallery[first : first + _TILE])  # (T, E)
                matrix[:, first : first + _TILE] = self._measure(rows, tile)
        matrix -= matrix.amin(dim=1, keepdim=True).clamp_(max=0)
        largest = matrix.amax(dim=1, keepdim=True)  # (A, 1)
        return matrix.div_(largest.masked_fill_(largest == 0, 1))

    def _mapped(self, rows: Tensor) -> Tensor:
        return (rows if self._form is None else self._form.map(rows)).double()

    def _neighbours(self) -> tuple[Tensor, Tensor]:
        """Find the neighbours of each item ``(M, K)``, and the distance ``(M,)`` of the last of them."""
        count = max(0, min(self._settings.k1, len(self._gallery) - 1))

        def search(own: Tensor) -> tuple[Tensor, Tensor]:
            """Search for one block of items, each of which is no neighbour of itself."""
            near = nearest(self._gallery[own], self._gallery, self._settings.k1, self._distance, own)
            return near.positions[:, :count], near.distances[:, max(0, count - 1)]

        blocks = torch.split(torch.arange(len(self._gallery)), _QUERIES)
        positions, reach = (torch.cat(part) for part in zip(*in_threads(search, blocks), strict=True))
        return positions, reach

    def _encode_gallery(self, members: Tensor, valid: Tensor) -> tuple[SparseRows, SparseRows]:
        """Encode the items: their encodings ``(M, M)``, and the averages of these over each item's neighbours.

        Args:
            members: Each item and its neighbours ``(M, K + 1)``.
            valid: Which of them are reciprocal ``(M, K + 1)``.
        """
        count = len(members)
        blocks = torch.split(torch.arange(count), self.rows_at_once)

        def encode(own: Tensor) -> Entries:
            """Encode the items of one block."""
            found = self._encode(self.original(self._gallery[own]), members[own], valid[own])
            return found._replace(rows=own[found.rows])

        alone = SparseRows.of(joined(in_threads(encode, blocks)), count, count)
        return alone, SparseRows.of(_average(alone, members[:, : self._settings.k2]), count, count)

    def _encode(self, original: Tensor, members: Tensor, valid: Tensor) -> Entries:
        """Expand reciprocal sets, and weight their members.

        Args:
            original: Original distances ``(A, M)``.
            members: Neighbours ``(A, S)``.
            valid: Which of them are reciprocal ``(A, S)``.

        Returns:
            Encodings ``(A, M)``.
        """
        inside = torch.zeros_like(original, dtype=torch.bool).scatter_(1, members, valid)  # (A, M)
        theirs, real = self._half[0][members], self._half[1][members] & valid[:, :, None]  # (A, S, H + 1) each
        shared = inside.gather(1, theirs.flatten(1)).view_as(real) & real  # (A, S, H + 1)
        added = real & (3 * shared.sum(dim=2) >= 2 * real.sum(dim=2))[:, :, None]  # (A, S, H + 1)
        inside[added.nonzero()[:, 0], theirs[added]] = True
        rows, columns = inside.nonzero().unbind(1)
        return Entries(rows, columns, original[inside].neg_().exp_())

    def _encode_new(self, query: Tensor, original: Tensor) -> Entries:
        """Encode queries ``(A, D)`` that are not in the gallery, with original distances ``(A, M)``: ``(A, M)``."""
        near = nearest(query, self._gallery, self._settings.k1, self._distance).positions  # (A, K)
        measure = exact_distance(self._distance, query.device)
        pairs = zip(query.double()[:, None], near, strict=True)
        back = torch.stack([measure(self._gallery[items].double(), row)[:, 0] for row, items in pairs])  # (A, K)
        own = self._encode(original, near, back <= self._reach[near])
        others = near[:, : self._settings.k2 - 1]  # (A, k2 - 1)
        average, share = _average(self._alone, others), 1 / (others.shape[1] + 1)
        average = average._replace(values=average.values * (1 - share))
        return joined([own._replace(values=own.values * share), average])

    def _jaccard(self, encoded: SparseRows) -> Tensor:
        """Compute Jaccard distances of encodings ``(A, M)`` to those of the gallery: ``(A, M)``."""
        rows, columns, values = encoded.all()
        shape = len(encoded.start) - 1, len(self._gallery)
        shared = torch.zeros(shape, dtype=torch.float64)  # (A, M)
        work = self._columns.counts(columns).cumsum(0) // CELLS_AT_ONCE
        sizes = torch.unique_consecutive(work, return_counts=True)[1].tolist()
        for part in torch.split(torch.arange(len(columns)), sizes):
            owner, item, value = self._columns.pick(columns[part])
            place = rows[part][owner] * shape[1] + item
            shared.view(-1).index_add_(0, place, torch.minimum(values[part][owner], value))
        union = encoded.sums()[:, None] + self._sums - shared  # (A, M)
        return shared.div_(union).neg_().add_(1)


def _mutual(near: Tensor) -> Tensor:
    """Tell which of the neighbours ``(M, K)`` of each item have it among theirs: ``(M, K)``."""
    step = max(1, CELLS_AT_ONCE // max(1, near.shape[1] ** 2))
    rows = torch.split(torch.arange(len(near)), step)
    return torch.cat([(near[near[own]] == own[:, None, None]).any(dim=2) for own in rows])


def _average(encoded: SparseRows, rows: Tensor) -> Entries:
    """Average encodings over the rows ``(A, k)``: ``(A, M)``."""
    found = encoded.pick(rows.flatten())
    each = max(1, rows.shape[1])
    return Entries(found.rows // each, found.columns, found.values / each)
