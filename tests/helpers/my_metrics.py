"""Metrics of a user's own."""

from __future__ import annotations

from typing_extensions import override

from metric_module.evaluation import EmbeddingMetric, Gathered


class Spread(EmbeddingMetric):
    """The mean distance of the embeddings from their mean; it names neither its figures nor a main one."""

    higher_is_better = False

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        centred = samples.embeddings - samples.embeddings.mean(dim=0)
        return {"spread": float(centred.norm(dim=1).mean())}


class MainSpread(Spread):
    """Spread that names its main figure."""

    main_figure = "spread"
