"""Batches that every part of the criterion's tests works on."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module.distances import SNR, Cosine, Distance, DotProduct, Euclidean, Manhattan, SquaredEuclidean
from metric_module.miners import All, BatchHard, Easy, Hard, Semihard

DISTANCES: list[type[Distance]] = [Euclidean, SquaredEuclidean, Cosine, Manhattan, DotProduct, SNR]
WINDOWS: list[type] = [All, Easy, Semihard, Hard]
MINERS = [*WINDOWS, BatchHard]

LABELS = {
    "uneven": [0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3],
    "lone": [0, 0, 1, 1, 1, 2, 3, 4, 4, 5, 6, 6],
    "shuffled": [2, 0, 1, 2, 0, 1, 1, 0, 2, 2, 7, 0],
    "negative and huge": [-5, 2**53, 2**53 + 1, -5, 2**53, 2**53 + 1, -5, 0, 0, 2**53 + 1, 0, -5],
}


def embed(rows: int, seed: int = 0, columns: int = 4) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
