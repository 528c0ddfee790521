"""Use of a trained encoder: embed items, compare them, search and identify."""

from metric_module.inference.embedder import Embedder, Match, UnreadableItemsError
from metric_module.inference.index import EmbeddingIndex, Neighbours

__all__ = ["Embedder", "EmbeddingIndex", "Match", "Neighbours", "UnreadableItemsError"]
