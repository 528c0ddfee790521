"""Use a trained model: embed items, search them and identify them."""

from metric_module.inference.arguments import Neighbours
from metric_module.inference.index import EmbeddingIndex
from metric_module.inference.milvus import MilvusIndex

__all__ = ["EmbeddingIndex", "MilvusIndex", "Neighbours"]
