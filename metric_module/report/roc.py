"""Same or different, by a threshold on the distance.

Shapes: T = thresholds.
"""

from __future__ import annotations

import math

import plotly.graph_objects as go
import torch
from torch import Tensor

from metric_module.evaluation.verification import RocCurve
from metric_module.report.colours import COLOURS
from metric_module.report.page import table

POINTS = 400
RATES = (1e-1, 1e-2, 1e-3, 1e-4)


def equal_error(curve: RocCurve) -> int:
    """The place where as many same pairs are refused as different ones accepted."""
    return int((curve.far - (1 - curve.tar)).abs().argmin())


def at_rate(curve: RocCurve, rate: float) -> int | None:
    """The place of the largest threshold that falsely accepts no more than this rate; None if every one does."""
    allowed = (curve.far <= rate).nonzero()[:, 0]
    return int(allowed[-1]) if len(allowed) else None


def roc_plot(curve: RocCurve) -> go.Figure:
    """True accept rate over false accept rate, which is on a log scale, and the equal error point."""
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
    equal = equal_error(curve)
    threshold = float(curve.thresholds[equal])
    plot.add_scatter(
        x=[float(curve.far[equal])],
        y=[float(curve.tar[equal])],
        mode="markers+text",
        marker={"size": 11, "color": COLOURS["hard"]},
        text=[f"threshold {threshold:.3f}"],
        textposition="top left",
        name="equal error",
        hovertemplate=f"threshold {threshold:.3f}<br>equal error {float(curve.far[equal]):.3f}<extra></extra>",
    )
    plot.update_layout(height=360, xaxis_title="false accept rate", yaxis_title="true accept rate", xaxis_type="log")
    plot.update_layout(hovermode="x", yaxis_range=[0, 1.02], xaxis_dtick=1, xaxis_exponentformat="power")
    return plot


def roc_table(curve: RocCurve) -> str:
    """The threshold at the equal error rate, and at some false accept rates."""
    best = int((curve.tar - curve.far).argmax())
    rows = [
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
