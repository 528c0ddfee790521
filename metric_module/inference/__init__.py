"""Use a trained model: embed items, search them and identify them."""

from metric_module.inference.index import EmbeddingIndex, Neighbours

__all__ = ["EmbeddingIndex", "Neighbours"]
