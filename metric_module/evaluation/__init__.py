"""Evaluation figures, computed exactly from embeddings, labels and ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metric_module.evaluation.clustering import clustering_metrics
from metric_module.evaluation.few_shot import few_shot_metrics
from metric_module.evaluation.identification import identification_metrics
from metric_module.evaluation.instances import adjusted_rand_index, instance_metrics
from metric_module.evaluation.relation_retrieval import Sought, pair_retrieval_metrics
from metric_module.evaluation.reranking import expand_queries, k_reciprocal_distances
from metric_module.evaluation.retrieval import PerQuery, retrieval_metrics, retrieval_per_query
from metric_module.evaluation.separation import Separation, separation
from metric_module.evaluation.verification.metrics import RocCurve, roc_curve, verification_metrics

if TYPE_CHECKING:
    from metric_module.evaluation.metrics.base import EmbeddingMetric, Gathered
    from metric_module.evaluation.metrics.identification import IdentificationMetric
    from metric_module.evaluation.metrics.of_classes import (
        ClusteringMetric,
        FewShotMetric,
        InstanceMetric,
        MetricGroup,
        VerificationMetric,
    )
    from metric_module.evaluation.metrics.of_relations import PairRetrievalMetric
    from metric_module.evaluation.metrics.retrieval import RetrievalMetric

__all__ = [
    "ClusteringMetric",
    "EmbeddingMetric",
    "FewShotMetric",
    "Gathered",
    "IdentificationMetric",
    "InstanceMetric",
    "MetricGroup",
    "PairRetrievalMetric",
    "PerQuery",
    "RetrievalMetric",
    "RocCurve",
    "Separation",
    "Sought",
    "VerificationMetric",
    "adjusted_rand_index",
    "clustering_metrics",
    "expand_queries",
    "few_shot_metrics",
    "identification_metrics",
    "instance_metrics",
    "k_reciprocal_distances",
    "pair_retrieval_metrics",
    "retrieval_metrics",
    "retrieval_per_query",
    "roc_curve",
    "separation",
    "verification_metrics",
]


def __getattr__(name: str) -> object:
    """Import a metric when it is first used: the functions alone do not need torchmetrics, which is slow to load."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from metric_module.evaluation.metrics import base, identification, of_classes, of_relations, retrieval

    home = {
        "EmbeddingMetric": base,
        "Gathered": base,
        "IdentificationMetric": identification,
        "PairRetrievalMetric": of_relations,
        "RetrievalMetric": retrieval,
    }
    return getattr(home.get(name, of_classes), name)
