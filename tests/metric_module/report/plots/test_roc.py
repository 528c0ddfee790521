"""The ROC curve and its table."""

from __future__ import annotations

import pytest
import torch

from metric_module.evaluation.verification.metrics import RocCurve, roc_curve
from metric_module.report.plots.roc import equal_error, last_within, roc_plot, roc_table
from tests.helpers.report_runs import items


def test_roc() -> None:
    samples = items()
    curve = roc_curve(samples.embeddings, samples.labels)
    equal = equal_error(curve)
    assert float(curve.far[equal]) == pytest.approx(1 - float(curve.tar[equal]), abs=0.05)
    place = last_within(curve.far, 0.1)
    assert place is not None and curve.far[place] <= 0.1 < curve.far[min(place + 1, len(curve.far) - 1)]
    assert last_within(curve.far + 1, 0.1) is None
    assert ["at most 0.1 false", "none", "", ""] in roc_table(curve._replace(far=curve.far + 1)).rows
    assert last_within(curve.thresholds, float(curve.thresholds[5]) + 1e-9) == 5
    assert last_within(curve.thresholds, -1.0) is None
    marked = roc_plot(curve, float(curve.thresholds[5])).data[1]
    assert (marked.name, marked.x[0], marked.y[0]) == (
        "best threshold of val",
        max(float(curve.far[5]), float(curve.far[curve.far > 0].min())),
        float(curve.tar[5]),
    )
    names = [row[0] for row in roc_table(curve).rows]
    assert names[:2] == ["equal error", "best balanced accuracy"] and names[-1] == "at most 0.0001 false"
    assert [row[0] for row in roc_table(curve, 0.3).rows] == ["best threshold of val", *names]
    plot = roc_plot(curve)
    assert plot.data[0].customdata[0] == pytest.approx(float(curve.thresholds[0]))
    long = type(curve)(*(torch.linspace(0, 1, 50_000, dtype=torch.float64) for _ in range(3)))
    assert 200 < len(roc_plot(long).data[0].x) <= 400


@pytest.mark.parametrize(
    ("threshold", "side"), [(0.0, "top right"), (3.0, "bottom left"), (0.3, "top right"), (0.9, "bottom left")]
)
def test_the_label_of_the_threshold_lies_inside_the_plot(threshold: float, side: str) -> None:
    """With a false accept rate of 0, too, which a log scale does not have."""
    steps = torch.linspace(0, 1, 11, dtype=torch.float64)
    marked = roc_plot(RocCurve(steps, steps**4, steps), threshold).data[1]
    assert (marked.textposition, marked.x[0] > 0) == (side, True)
