"""Block sizes of the computations that go block by block, made small so that small inputs need several blocks."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_CRITERION, _EVALUATION = "metric_module.criterion", "metric_module.evaluation"


@contextmanager
def small_blocks(
    *,
    memory_budget: int | None = None,
    sort_from: int | None = None,
    close_pairs: int | None = None,
    queries: int | None = None,
    cells: int | None = None,
    segment: int | None = None,
    tile: int | None = None,
    positives: int | None = None,
    side: int | None = None,
    shard_bytes: int | None = None,
) -> Iterator[None]:
    """Change block sizes, and restore them at the end; None leaves a size as it is.

    Args:
        memory_budget: Bytes of the tensors of one block of anchors in the criterion.
        sort_from: Positives per anchor beyond which negatives are counted by sorting.
        close_pairs: Near duplicates whose Euclidean distances are computed in the direct form at once.
        queries: Queries of retrieval or of a search that are ranked at once.
        cells: Distances that retrieval, re-ranking and the separation of distances compute at once.
        segment: Columns of the gallery that exact Euclidean ranks and searches compare at once.
        tile: Columns of the gallery in a tile of exact Euclidean ranks; numbers in a tile of a search.
        positives: Positives per query from which exact ranks sort; counting sorts from twice as many.
        side: Rows and columns of a tile of verification pairs; three times as many single pairs are settled at once.
        shard_bytes: Bytes of embeddings that ``task=embed`` reads from a shard at once.
    """
    sizes = {
        f"{_CRITERION}.block_size.MEMORY_BUDGET": memory_budget,
        f"{_CRITERION}.block_size.FEWEST_ROWS": None if memory_budget is None else 1,
        f"{_CRITERION}.counts.SORT_FROM": sort_from,
        "metric_module.miners.semihard_nearest.SORT_FROM": sort_from,
        "metric_module.distances.euclidean._PAIRS_AT_ONCE": close_pairs,
        f"{_EVALUATION}.retrieval.QUERIES_AT_ONCE": queries,
        f"{_EVALUATION}.relation_retrieval.QUERIES_AT_ONCE": queries,
        f"{_EVALUATION}.retrieval.CELLS_AT_ONCE": cells,
        f"{_EVALUATION}.relation_retrieval.CELLS_AT_ONCE": cells,
        f"{_EVALUATION}.separation._CELLS": cells,
        f"{_EVALUATION}.k_reciprocal.CELLS_AT_ONCE": cells,
        f"{_EVALUATION}.exact.euclidean_ranks._SEGMENT": segment,
        f"{_EVALUATION}.exact.euclidean_ranks._TILE": tile,
        f"{_EVALUATION}.exact.euclidean_ranks._MANY": positives,
        f"{_EVALUATION}.exact.nearest._SEGMENT": segment,
        f"{_EVALUATION}.exact.nearest._NUMBERS": tile,
        f"{_EVALUATION}.exact.nearest._QUERIES": queries,
        f"{_EVALUATION}.exact.counting._MANY": None if positives is None else 2 * positives,
        f"{_EVALUATION}.verification.pair_counts._SIDE": side,
        f"{_EVALUATION}.verification.pair_counts._PAIRS": None if side is None else 3 * side,
        "metric_module.tasks.embedding.shards.BLOCK_BYTES": shard_bytes,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, size in sizes.items():
            if size is not None:
                module, _, constant = name.rpartition(".")
                patch.setattr(importlib.import_module(module), constant, size)
        yield
