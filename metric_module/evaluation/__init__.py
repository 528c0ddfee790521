"""Figures of an embedding, computed exactly from embeddings, labels and ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metric_module.evaluation.retrieval import retrieval_metrics

if TYPE_CHECKING:
    from metric_module.evaluation.metric import Gathered, RetrievalMetric

__all__ = ["Gathered", "RetrievalMetric", "retrieval_metrics"]


def __getattr__(name: str) -> object:
    """Import the metric when it is first used: the function alone does not need torchmetrics, which is slow to load."""
    if name not in {"Gathered", "RetrievalMetric"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from metric_module.evaluation import metric

    return getattr(metric, name)
