"""The ROC curve of verification: which pairs are accepted at each threshold on the distance.

Shapes: T = thresholds.
"""

from __future__ import annotations

import math

import plotly.graph_objects as go
import torch
from torch import Tensor

from metric_module.evaluation.verification.metrics import RocCurve
from metric_module.report.page import Table
from metric_module.report.plots.shares import COLOURS

POINTS = 400
RATES = (1e-1, 1e-2, 1e-3, 1e-4)


def equal_error(curve: RocCurve) -> int:
    """Return the position at which the share of rejected same pairs is nearest to that of accepted different pairs."""
    return int((curve.far - (1 - curve.tar)).abs().argmin())


def last_within(values: Tensor, limit: float) -> int | None:
    """Return the position of the last of some rising values that is at most a limit; None if all are larger.

    Args:
        values: Rising values ``(T,)``, false accept rates or thresholds of a curve.
        limit: The limit.
    """
    place = int(torch.searchsorted(values.contiguous(), limit, right=True)) - 1
    return place if place >= 0 else None


def roc_plot(curve: RocCurve, chosen: float | None = None) -> go.Figure:
    """Plot the true accept rate over the false accept rate, which has a log scale, and mark one threshold.

    Args:
        curve: The curve.
        chosen: The threshold that was best on val; it is marked instead of the equal error. None if there is none.
    """
    places = _thinned(curve.far)
    plot = go.Figure()
    plot.add_scatter(
        x=curve.far[places].tolist(),
        y=curve.tar[places].tolist(),
        customdata=curve.thresholds[places].tolist(),
        mode="lines",
        name="all pairs",
        hovertemplate="threshold %{customdata:.3f}<br>true accepts %{y:.3f}<br>false accepts %{x:.2g}<extra></extra>",
    )
    name, place = "best threshold of val", None if chosen is None else last_within(curve.thresholds, chosen)
    if chosen is None or place is None:
        name, place = "equal error", equal_error(curve)
        chosen = float(curve.thresholds[place])
    least = float(curve.far[curve.far > 0].min()) if bool((curve.far > 0).any()) else 1.0
    false, true = max(float(curve.far[place]), least), float(curve.tar[place])  # the log scale has no 0
    plot.add_scatter(
        x=[false],
        y=[true],
        mode="markers+text",
        marker={"size": 11, "color": COLOURS["hard"]},
        text=[f"threshold {chosen:.3f}"],
        textposition=_inwards(math.log(false / least), -math.log(least), true),
        name=name,
        hovertemplate=f"{name}: {chosen:.3f}<br>true accepts {true:.3f}<br>false accepts {false:.2g}<extra></extra>",
    )
    plot.update_layout(height=360, xaxis_title="false accept rate", yaxis_title="true accept rate", xaxis_type="log")
    plot.update_layout(hovermode="x", yaxis_range=[0, 1.02], xaxis_dtick=1, xaxis_exponentformat="power")
    return plot


def roc_table(curve: RocCurve, chosen: float | None = None) -> Table:
    """Return a table of thresholds: best on val, at the equal error, best here, and at some false accept rates.

    Args:
        curve: The curve.
        chosen: The threshold that was best on val; None if there is none.
    """
    places = {} if chosen is None else {"best threshold of val": last_within(curve.thresholds, chosen)}
    places |= {"equal error": equal_error(curve), "best balanced accuracy": int((curve.tar - curve.far).argmax())}
    places |= {f"at most {rate:g} false": last_within(curve.far, rate) for rate in RATES}
    rows = [
        [name, "none", "", ""] if place is None else [name, *(f"{float(part[place]):.3g}" for part in curve)]
        for name, place in places.items()
    ]
    return Table("roc-table", ["at", "threshold", "false accepts", "true accepts"], rows, numeric=(1, 2, 3))


def _inwards(place: float, width: float, true: float) -> str:
    """Return the side of a mark on which its label lies inside the plot.

    Args:
        place: Distance of the mark from the left edge, in the units of ``width``.
        width: Width of the plot.
        true: Height of the mark, from 0 to 1.
    """
    return f"{'bottom' if true > 0.5 else 'top'} {'left' if place > 0.6 * width else 'right'}"


def _thinned(far: Tensor) -> Tensor:
    """Return up to 400 positions, half of them spread evenly over log false accept rates above 0, half over rates."""
    if len(far) <= POINTS:
        return torch.arange(len(far))
    least = float(far[far > 0].min()) if bool((far > 0).any()) else 1.0
    rates = torch.cat([torch.logspace(math.log10(least), 0, POINTS // 2), torch.linspace(0, 1, POINTS // 2)])
    places = torch.searchsorted(far.contiguous(), rates.to(far)).clamp(max=len(far) - 1)
    chosen: Tensor = torch.unique(places)
    return chosen
