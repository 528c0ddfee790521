"""Distributions of the distances of positive and negative pairs, and the margin between them."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from torch import Tensor

from metric_module.evaluation.separation import QUANTILES, Separation
from metric_module.report.plots.shares import COLOURS, DASHED, add_shares

MEDIAN = QUANTILES.index(0.5)


def separation_plot(panels: Sequence[tuple[str, Separation]], margin: float) -> go.Figure:
    """Plot the distributions of d_ap and d_an, with a band for the margin beyond the median positive pair.

    Args:
        panels: Title and separation of each panel, from top to bottom.
        margin: The margin in units of the distance; 0, as a soft loss may have it, draws no band.
    """
    plot = make_subplots(
        rows=len(panels),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.12,
        subplot_titles=[title for title, _ in panels],
    )
    for row, (_, part) in enumerate(panels, start=1):
        for name, counts in (("positive", part.positive), ("negative", part.negative)):
            x, y = _outline(part.edges, counts)
            plot.add_scatter(
                x=x,
                y=y,
                name=f"d_a{name[0]} ({name} pairs)",
                legendgroup=name,
                showlegend=row == 1,
                mode="lines",
                fill="tozeroy",
                line={"shape": "hv", "width": 1.5, "color": COLOURS[name]},
                hovertemplate="%{x:.2f}",
                row=row,
                col=1,
            )
        middle = float(part.positive_quantiles[MEDIAN])
        plot.add_vline(x=middle, line=DASHED, row=row, col=1)
        if margin:
            band = {"fillcolor": COLOURS["semi-hard"], "opacity": 0.22, "line_width": 0}
            note = {"annotation_text": f"margin {margin:.3g}", "annotation_position": "top left"}
            plot.add_vrect(middle, middle + margin, **band, **note, row=row, col=1)
            plot.add_vline(x=middle + margin, line=DASHED, row=row, col=1)
    plot.update_yaxes(showticklabels=False, rangemode="tozero", title_text="share of pairs")
    plot.update_xaxes(title_text="distance", row=len(panels), col=1)
    plot.update_xaxes(showticklabels=True)
    legend = {"orientation": "h", "x": 0, "y": 1.0 + 0.05 * len(panels), "yanchor": "bottom"}
    plot.update_layout(
        height=140 + 230 * len(panels), margin={"l": 36, "r": 12, "t": 92, "b": 48}, legend=legend, bargap=0
    )
    return plot


def margins_plot(part: Separation, margin: float) -> go.Figure:
    """Plot the shares of easy, semi-hard and hard triplets at each margin, with a line at the run's own margin.

    Args:
        part: The separation.
        margin: The run's own margin, in units of the distance.
    """
    plot = go.Figure()
    for kind, shares in (("hard", part.hard), ("semi-hard", part.semihard), ("easy", part.easy)):
        add_shares(plot, kind, part.margins.tolist(), shares.tolist())
    plot.add_vline(x=margin, line=DASHED)
    plot.update_layout(height=280, xaxis_title="margin")
    return plot


def shares_at(part: Separation, margin: float) -> str:
    """Write the shares of easy, semi-hard and hard triplets at the nearest of the measured margins in words.

    Args:
        part: The separation.
        margin: The margin, in units of the distance.
    """
    place = int((part.margins - margin).abs().argmin())
    shares = ((part.easy, "easy"), (part.semihard, "semi-hard"), (part.hard, "hard"))
    return ", ".join(f"{100 * float(share[place]):.1f} % {kind}" for share, kind in shares)


def _outline(edges: Tensor, counts: Tensor) -> tuple[list[float], list[float]]:
    """Return a histogram as a line that starts at 0 and returns to it, with area 1."""
    width = (edges[1:] - edges[:-1]).clamp(min=1e-12)
    height = counts.double() / width / counts.sum().clamp(min=1)
    return edges.tolist(), [*height.tolist(), 0.0]
