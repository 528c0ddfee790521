"""Open-set identification as a metric, for Lightning and for any loop."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from metric_module.distances import Distance
from metric_module.errors import NotComputableError
from metric_module.evaluation.identification import (
    assign_roles,
    check_protocol,
    identification_metrics,
    too_few_unknown,
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
        self,
        distance: Distance | None = None,
        enrolled: int = 1,
        far: Sequence[float] = (1e-1, 1e-2, 1e-3),
        seed: int = 0,
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
        missing = self._missing_rates(int(figures["unknown_probes"]))
        self.left_out += [f"{found.figures[0]}: {found.reason}" for found in missing]
        return figures

    @override
    def missing(self, data: Labelled) -> list[Missing]:
        """See :class:`EmbeddingMetric`: a rate needs enough unknown probes, and all figures known ones."""
        try:
            roles = assign_roles(data.labels, data.ids, self.enrolled, self.seed)
        except NotComputableError as reason:
            return [Missing(self.figure_names(), str(reason))]
        return self._missing_rates(len(roles.unknown))

    def _missing_rates(self, unknown: int) -> list[Missing]:
        """List the figures that need more than ``unknown`` unknown probes."""
        reasons = [(rate_name(rate, "dir"), too_few_unknown(rate, unknown)) for rate in self.far]
        return [Missing([name], reason) for name, reason in reasons if reason]
