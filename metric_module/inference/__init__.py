"""Use of a trained encoder: embed items, compare them, search and identify."""

from metric_module.inference.arguments import Neighbours
from metric_module.inference.embedder import Embedder, Match, UnreadableItemsError
from metric_module.inference.index import EmbeddingIndex
from metric_module.inference.milvus import MilvusIndex

__all__ = ["Embedder", "EmbeddingIndex", "Match", "MilvusIndex", "Neighbours", "UnreadableItemsError"]
