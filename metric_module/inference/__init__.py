"""Use of a trained encoder: embed items, compare them, search and identify."""

from metric_module.inference.embedder import Embedder, Match, UnreadableItemsError

__all__ = ["Embedder", "Match", "UnreadableItemsError"]
