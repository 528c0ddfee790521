"""Open-set identification as a metric, for Lightning and for any loop."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from metric_module.distances import Distance
from metric_module.errors import NotComputableError
from metric_module.evaluation.identification import (
    FAR,
    assign_roles,
    check_protocol,
    identification_metrics,
    missing_rates,
)
from metric_module.evaluation.metrics.base import EmbeddingMetric, Gathered
from metric_module.evaluation.preflight import Labelled, Missing
from metric_module.evaluation.verification.rates import rate_name


class IdentificationMetric(EmbeddingMetric):
    """:func:`identification_metrics` over all batches of all processes.

    Args:
        distance: The distance; None is Euclidean.
        enrolled: Number of samples to enrol of each class.
        far: The false positive identification rates of ``dir_at_far``.
        seed: Seed of the halves of the classes.

    Raises:
        UserError: If a number is wrong.
    """

    def __init__(
        self, distance: Distance | None = None, enrolled: int = 1, far: Sequence[float] = FAR, seed: int = 0
    ) -> None:
        super().__init__(distance)
        check_protocol(enrolled, far)
        self.enrolled, self.far, self.seed = enrolled, tuple(far), seed
        self.main_figure = self.figure_names()[0]

    @override
    def figure_names(self, folds: int | None = None) -> list[str]:
        """See :func:`identification_metrics`."""
        names = [rate_name(rate, "dir") for rate in self.far]
        return [*names, "identification_rate", "known_probes", "unknown_probes", "enrolled"]

    @override
    def figures(self, samples: Gathered) -> dict[str, float]:
        """See :func:`identification_metrics`; a rate that needs more unknown probes is left out."""
        figures = identification_metrics(
            *samples[:3], distance=self.distance, enrolled=self.enrolled, far=self.far, seed=self.seed
        )
        missing = missing_rates(self.far, int(figures["unknown_probes"]))
        self.left_out += [f"{name}: {reason}" for name, reason in missing.items()]
        return figures

    @override
    def missing(self, data: Labelled) -> list[Missing]:
        """See :class:`EmbeddingMetric`: a rate needs enough unknown probes, and all figures known ones."""
        try:
            roles = assign_roles(data.labels, data.ids, self.enrolled, self.seed)
        except NotComputableError as reason:
            return [Missing(self.figure_names(), str(reason))]
        return [Missing([name], reason) for name, reason in missing_rates(self.far, len(roles.unknown)).items()]
