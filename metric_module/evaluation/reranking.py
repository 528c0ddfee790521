"""Re-ranking: a second look at what a search found, by the neighbours of what was found.

Shapes: Q = queries, M = gallery items, A = queries in a block, D = embedding size, K = neighbours.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metric_module.distances import Distance
from metric_module.errors import UserError
from metric_module.evaluation.exact.nearest import nearest
from metric_module.evaluation.exact.threads import in_threads
from metric_module.evaluation.inputs import Items, check_sides
from metric_module.evaluation.k_reciprocal import ReciprocalGallery
from metric_module.evaluation.rerank_methods import KReciprocal, QueryExpansion


def k_reciprocal_distances(
    queries: Tensor,
    gallery: Tensor | None = None,
    ids: Tensor | None = None,
    gallery_ids: Tensor | None = None,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    distance: Distance | None = None,
) -> Tensor:
    r"""Compute the distances of k-reciprocal re-ranking: two items are near if they have the same neighbours.

    With d the original distance, N(p, k) the k nearest gallery items of p, and p itself left out of it:

    - Reciprocal neighbours: ``R(p, k) = {p} + {g in N(p, k) : p in N(g, k)}``.
    - Expanded: ``R*(p)`` is R(p, k1) and every R(g, k1 / 2) of a g in R(p, k1) with
      ``|R(p, k1) & R(g, k1 / 2)| >= 2/3 |R(g, k1 / 2)|``; half of an odd k1 is rounded up.
    - Encoding: ``V_p[g] = exp(-d(p, g))`` for g in R*(p), else 0; then the average of V over p and its k2 - 1 nearest.
    - ``d_J(p, g) = 1 - sum_j min(V_p[j], V_g[j]) / sum_j max(V_p[j], V_g[j])``.
    - ``d*(p, g) = (1 - weight) d_J(p, g) + weight d(p, g)``.

    Source: Zhong, Zheng, Cao and Li, "Re-ranking Person Re-identification with k-reciprocal Encoding" (CVPR 2017).
    Where the paper leaves a choice, and where the code published with it differs:

    - d is the squared Euclidean distance, as in the code, for every distance that has a Euclidean form, and otherwise
      the distance itself. It is divided by the query's largest, as in the code; a negative one is first shifted to 0.
    - Neighbours are sought in the gallery alone, so that it is encoded once for all queries. The code puts all queries
      into the gallery, so that its result for a query depends on the other queries. A query that is not in the gallery
      is no member of its own set, and is among the neighbours of g if it is as near as the last of them.
    - The average counts p as the first of its neighbours, as the code does.
    - Encodings are not scaled; the code scales each to a sum of 1. Two thirds that are just reached are enough; in the
      code they must be exceeded.

    Neighbours are exact; of those at the same distance the one of the lower id comes first, without ids the one of the
    lower row. All is computed on the CPU.

    Args:
        queries: Queries ``(Q, D)``, floating point. Without a gallery they are their own.
        gallery: Items to search ``(M, D)``, at most 100,000.
        ids: Integers ``(Q,)``: a query with the id of a gallery item is that item.
        gallery_ids: Integers ``(M,)``.
        k1: Number of neighbours among which reciprocal ones are sought.
        k2: Number of neighbours whose encodings are averaged, the item itself included; 1 averages none.
        weight: Weight of the original distance, lambda in the paper.
        distance: The distance; None is Euclidean.

    Returns:
        Distances, float64 ``(Q, M)``; they can be compared within a row.

    Raises:
        UserError: If a shape, type or number is wrong, or the gallery is too large.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [1.2], [5.0], [5.1]])
        >>> k_reciprocal_distances(points, k1=2, k2=1).argsort(dim=1)[:, 1].tolist()  # the nearest other item
        [1, 2, 1, 4, 3]
    """
    settings = KReciprocal(k1, k2, weight)
    query, items, order = _sides(queries, gallery, ids, gallery_ids)
    encoded = ReciprocalGallery(items.embeddings, settings, distance)
    item = positions(query, items)  # (Q,)
    blocks = torch.split(torch.arange(len(item)), encoded.rows_at_once)
    found, columns = torch.empty(len(item), len(order), dtype=torch.float64), order.cpu().argsort()  # (Q, M), (M,)

    def fill(rows: Tensor) -> None:
        """Compute the distances of one block, in the order of the gallery as it was given."""
        found[rows] = encoded.final(query.embeddings[rows], item[rows])[:, columns]

    in_threads(fill, blocks)
    return found.to(query.embeddings.device)


def expand_queries(
    queries: Tensor,
    gallery: Tensor | None = None,
    ids: Tensor | None = None,
    gallery_ids: Tensor | None = None,
    *,
    k: int = 10,
    alpha: float = 3.0,
    distance: Distance | None = None,
) -> Tensor:
    r"""Add to each query its nearest gallery items, which are then sought with it: alpha query expansion.

    ``q' = q + sum_i max(cos(q, g_i), 0)^alpha g_i`` over the k nearest items, scaled to the length of q. With alpha = 0
    this is average query expansion. The gallery remains as it is.

    Sources: Radenovic, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation" (TPAMI 2018),
    for unit vectors; for alpha = 0 Chum, Philbin, Sivic, Isard and Zisserman, "Total Recall" (ICCV 2007),
    without its spatial verification.

    Args:
        queries: Queries ``(Q, D)``, floating point. Without a gallery they are their own.
        gallery: Items to search ``(M, D)``.
        ids: Integers ``(Q,)``: a gallery item with the query's id is the query itself, and is not added.
        gallery_ids: Integers ``(M,)``.
        k: Number of neighbours; of those at the same distance the one of the lower id comes first, without ids the one
            of the lower row.
        alpha: Power of the cosine similarity, 0 or more.
        distance: The distance by which neighbours are near; None is Euclidean.

    Returns:
        Embeddings ``(Q, D)``, in the type of the queries (float32 for half precision).

    Raises:
        UserError: If a shape, type or number is wrong.

    Example:
        >>> expand_queries(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0], [-3.0, 0.0]]), k=1, alpha=0).tolist()
        [[0.4472135901451111, 0.8944271802902222]]
    """
    query, items, _ = _sides(queries, gallery, ids, gallery_ids)
    settings = QueryExpansion(k, alpha)
    near = neighbours(query, items, settings.k, distance)  # (Q, K)
    return expanded(query.embeddings, near, items.embeddings.__getitem__, settings.alpha)


def expanded(query: Tensor, positions: Tensor, items: Callable[[Tensor], Tensor], alpha: float) -> Tensor:
    """Add to each query its nearest items; see :func:`expand_queries`.

    Args:
        query: Queries ``(Q, D)``.
        positions: Positions of the items ``(Q, K)``, nearest first; -1 for none.
        items: Gives the items ``(Q, D)`` at positions ``(Q,)``, any item for -1.
        alpha: Power of the cosine similarity.

    Returns:
        Embeddings ``(Q, D)``.
    """
    own = query.double()  # (Q, D)
    total = own.clone()  # (Q, D)
    length = torch.linalg.vector_norm(own, dim=1, keepdim=True)  # (Q, 1)
    for place in positions.unbind(1):  # (Q,)
        added = items(place).double()  # (Q, D)
        scale = length[:, 0] * torch.linalg.vector_norm(added, dim=1)  # (Q,)
        similarity = ((own * added).sum(dim=1) / scale.masked_fill(scale == 0, 1)).clamp(min=0)  # (Q,)
        total += (similarity**alpha * (place >= 0))[:, None] * added
    norm = torch.linalg.vector_norm(total, dim=1, keepdim=True)  # (Q, 1)
    return torch.where(norm > 0, total * (length / norm.masked_fill(norm == 0, 1)), own).to(query.dtype)


def neighbours(query: Items, gallery: Items, k: int, distance: Distance | None) -> Tensor:
    """Find the positions of each query's nearest items ``(Q, K)`` other than itself, in a gallery sorted by id."""
    return nearest(query.embeddings, gallery.embeddings, k, distance, positions(query, gallery)).positions


def positions(query: Items, gallery: Items) -> Tensor:
    """Find each query in a gallery that is sorted by id: its position, -1 for one that is not in it, int64 ``(Q,)``."""
    if query.ids is None or gallery.ids is None:
        return torch.full_like(query.labels, -1)
    place = torch.searchsorted(gallery.ids, query.ids).clamp_(max=len(gallery.ids) - 1)  # (Q,)
    return place.where(gallery.ids[place] == query.ids, -1)


def _sides(
    queries: Tensor, gallery: Tensor | None, ids: Tensor | None, gallery_ids: Tensor | None
) -> tuple[Items, Items, Tensor]:
    """Check the arguments: queries, the gallery sorted by id, and the row of each of its items ``(M,)``."""
    labels = None if gallery is None else torch.zeros(len(gallery)).long()
    query, items = check_sides(
        Items(queries, torch.zeros(len(queries)).long(), ids, None), (gallery, labels, gallery_ids, None)
    )
    if not len(items.labels):
        raise UserError("gallery: expected at least one item, got none")
    order = torch.arange(len(items.labels)) if items.ids is None else items.ids.argsort()  # (M,)
    return query, items.each(lambda part: part[order]), order
