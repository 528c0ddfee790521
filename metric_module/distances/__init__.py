"""Distances between embeddings: smaller is closer."""

from metric_module.distances.angular import Cosine, DotProduct
from metric_module.distances.base import Distance, EuclideanForm
from metric_module.distances.euclidean import Euclidean, SquaredEuclidean
from metric_module.distances.manhattan import Manhattan
from metric_module.distances.snr import SNR

__all__ = ["SNR", "Cosine", "Distance", "DotProduct", "Euclidean", "EuclideanForm", "Manhattan", "SquaredEuclidean"]
