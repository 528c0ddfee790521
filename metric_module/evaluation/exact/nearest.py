"""Exact k nearest neighbours in a gallery that may be memory-mapped.

Shapes: Q = queries, M = gallery items, A = queries in a block, T = items in a tile, D = embedding size, K = neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metric_module.checks import check_embeddings
from metric_module.distances import Distance, EuclideanForm
from metric_module.errors import UserError
from metric_module.evaluation.exact.any_distance import exact_distance, form_or_copy
from metric_module.evaluation.exact.running_best import Nearest
from metric_module.evaluation.exact.tile_search import ProductSearch, Tile, TileSearch, whole_segments
from metric_module.functional import float64_device, full_precision

_QUERIES = 128  # queries in a block
_NUMBERS = 1 << 21  # scores in a block of queries and a tile
_SMALL = 2048  # items in a tile for a distance that may need memory for every pair and coordinate
_SAMPLE = 256  # gallery rows from which the centre is estimated
_OFF_CENTRE = 16.0  # squared length of the mean, as a multiple of the spread around it, that makes products inexact


def nearest(
    query: Tensor,
    gallery: Tensor | Sequence[Tensor],
    k: int,
    distance: Distance | None = None,
    exclude: Tensor | None = None,
) -> Nearest:
    """Find the k nearest items of each query, exactly: equal to sorting all float64 distances, ties by position.

    The gallery may be memory-mapped: it is read a few megabytes at a time, once for each block of queries.

    Args:
        query: Queries ``(Q, D)``.
        gallery: Items ``(M, D)``, or consecutive parts of them.
        k: Number of neighbours; K is M if the gallery is smaller.
        distance: The distance; None is Euclidean. One without a Euclidean form is rounded to float32.
        exclude: Position of an item to leave out for each query, -1 for none, int64 ``(Q,)``.

    Returns:
        The neighbours, on the device of the queries. A row with fewer than K ends with infinity and position -1.

    Raises:
        UserError: If k is less than 1, or a row has another width, is not finite, or has a number above 1e150.

    Example:
        >>> found = nearest(torch.tensor([[0.0]]), torch.tensor([[3.0], [1.0], [-1.0]]), k=2)
        >>> found.distances.tolist(), found.positions.tolist()
        ([[1.0, 1.0]], [[1, 2]])
    """
    if k < 1:
        raise UserError(f"k: expected 1 or more neighbours, got {k}")
    parts = [gallery] if isinstance(gallery, Tensor) else list(gallery)
    check_embeddings("queries", query, parts[0].shape[1] if parts else None)
    device = float64_device(query.device)
    rows = query.detach().to(device)  # (Q, D)
    count = min(k, sum(map(len, parts)))
    if not count or not len(rows):
        return Nearest.none(len(rows), count, query.device)
    skipped = None if exclude is None else exclude.to(device)  # (Q,)
    with full_precision(device.type), torch.no_grad():
        form = form_or_copy(distance, device)
        center = _center(parts, form, device) if isinstance(form, EuclideanForm) else None
        queries = max(1, min(_QUERIES, len(rows), _NUMBERS // (4 * count)))  # A
        tiles = _tiles(parts, whole_segments(max(4 * count, _tile_size(form, queries, rows.shape[1]))))
        found = []
        for block in torch.split(torch.arange(len(rows), device=device), queries):
            some, left_out = rows[block], None if skipped is None else skipped[block]  # (A, D), (A,)
            if isinstance(form, EuclideanForm):
                searcher: TileSearch = ProductSearch(some, left_out, count, form, center)
            else:
                searcher = TileSearch(some.double(), left_out, count, exact_distance(distance, device))
            found.append(searcher.over(tiles))
    return Nearest(*(torch.cat(part).to(query.device) for part in zip(*found, strict=True)))


def _tile_size(form: EuclideanForm | Distance, queries: int, width: int) -> int:
    """Return the number of gallery rows that are read at once: the fewer the numbers for each, the more."""
    if isinstance(form, EuclideanForm) and form.rows is None:
        return min(_NUMBERS // queries, 4 * _NUMBERS // width)
    return min(_NUMBERS // width, _NUMBERS if isinstance(form, EuclideanForm) else _SMALL)


def _tiles(parts: Sequence[Tensor], size: int) -> list[Tile]:
    """Cut the parts of a gallery into tiles of at most ``size`` rows."""
    tiles, first = [], 0
    for part in parts:
        for rows in torch.split(part.detach(), size) if len(part) else ():
            tiles.append(Tile(rows, first))
            first += len(rows)
    return tiles


def _center(parts: Sequence[Tensor], form: EuclideanForm, device: torch.device) -> Tensor | None:
    """Estimate the mean ``(D,)`` of the gallery from some of its rows; None if it is close enough to zero."""
    step = -(-sum(map(len, parts)) // _SAMPLE)
    sample = torch.cat([part.detach()[::step] for part in parts]).to(device)  # (at most _SAMPLE + parts, D)
    sample = form.map(sample[sample.isfinite().all(dim=1)])
    center = sample.double().mean(dim=0).to(sample.dtype)  # (D,)
    spread = (sample.double() - center.double()).square().sum(dim=1).mean()
    off = center.double().square().sum() > _OFF_CENTRE * spread
    return center if bool(off) and bool(center.isfinite().all()) else None
