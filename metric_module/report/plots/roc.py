"""Same or different, by a threshold on the distance.

Shapes: T = thresholds.
"""

from __future__ import annotations

import math

import plotly.graph_objects as go
import torch
from torch import Tensor

from metric_module.evaluation.verification.metrics import RocCurve
from metric_module.report.page import table
from metric_module.report.plots.colours import COLOURS

POINTS = 400
RATES = (1e-1, 1e-2, 1e-3, 1e-4)


def equal_error(curve: RocCurve) -> int:
    """The place where as many same pairs are refused as different ones accepted."""
    return int((curve.far - (1 - curve.tar)).abs().argmin())


def at_rate(curve: RocCurve, rate: float) -> int | None:
    """The place of the largest threshold that falsely accepts no more than this rate; None if every one does."""
    allowed = (curve.far <= rate).nonzero()[:, 0]
    return int(allowed[-1]) if len(allowed) else None


def at_threshold(curve: RocCurve, threshold: float) -> int | None:
    """The place of the largest threshold that accepts no more than this one; None if it accepts no same pair."""
    place = int(torch.searchsorted(curve.thresholds, threshold, right=True)) - 1
    return place if place >= 0 else None


def roc_plot(curve: RocCurve, chosen: float | None = None) -> go.Figure:
    """True accept rate over false accept rate, which is on a log scale, and two points on it.

    Args:
        curve: The curve.
        chosen: A threshold that was found best on val; with it, its point is shown in place of the equal error.
    """
    places = _some(curve.far)
    plot = go.Figure()
    plot.add_scatter(
        x=curve.far[places].tolist(),
        y=curve.tar[places].tolist(),
        customdata=curve.thresholds[places].tolist(),
        mode="lines",
        name="all pairs",
        hovertemplate="threshold %{customdata:.3f}<br>true accepts %{y:.3f}<br>false accepts %{x:.2g}<extra></extra>",
    )
    known = None if chosen is None else at_threshold(curve, chosen)
    name, place = ("equal error", equal_error(curve)) if known is None else ("best threshold of val", known)
    threshold = float(curve.thresholds[place]) if known is None or chosen is None else chosen
    false, true = float(curve.far[place]), float(curve.tar[place])
    plot.add_scatter(
        x=[false],
        y=[true],
        mode="markers+text",
        marker={"size": 11, "color": COLOURS["hard"]},
        text=[f"threshold {threshold:.3f}"],
        textposition="top left",
        name=name,
        hovertemplate=f"{name}: {threshold:.3f}<br>true accepts {true:.3f}<br>false accepts {false:.2g}<extra></extra>",
    )
    plot.update_layout(height=360, xaxis_title="false accept rate", yaxis_title="true accept rate", xaxis_type="log")
    plot.update_layout(hovermode="x", yaxis_range=[0, 1.02], xaxis_dtick=1, xaxis_exponentformat="power")
    return plot


def roc_table(curve: RocCurve, chosen: float | None = None) -> str:
    """The threshold that was chosen on val, that of the equal error rate, and those of some false accept rates."""
    best = int((curve.tar - curve.far).argmax())
    rows = [
        *([] if chosen is None else [("best threshold of val", at_threshold(curve, chosen))]),
        ("equal error", equal_error(curve)),
        ("best balanced accuracy", best),
        *((f"at most {rate:g} false", at_rate(curve, rate)) for rate in RATES),
    ]
    lines = [
        [name, *(f"{float(part[place]):.3g}" for part in curve)] if place is not None else [name, "none", "", ""]
        for name, place in rows
    ]
    return table(["at", "threshold", "false accepts", "true accepts"], lines, "roc-table", numeric=(1, 2, 3))


def _some(far: Tensor) -> Tensor:
    """Some hundred places, spread evenly on a log scale of the rate above 0, and on a linear one."""
    if len(far) <= POINTS:
        return torch.arange(len(far))
    least = float(far[far > 0].min()) if bool((far > 0).any()) else 1.0
    rates = torch.cat([torch.logspace(math.log10(least), 0, POINTS // 2), torch.linspace(0, 1, POINTS // 2)])
    places = torch.searchsorted(far.contiguous(), rates.to(far)).clamp(max=len(far) - 1)
    chosen: Tensor = torch.unique(places)
    return chosen
