"""The picture that the triplet loss is explained with, from real data: how far pairs are apart, and the margin."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch import Tensor

from metric_module.evaluation.separation import Separation
from metric_module.report.plots.colours import COLOURS

MEDIAN = 3  # of the seven quantiles


def separation_plot(parts: Sequence[tuple[str, Separation]], margin: float) -> go.Figure:
    """Distributions of d_ap and d_an, one panel for each part, with the margin beyond the median positive.

    Args:
        parts: Title and separation of each panel.
        margin: In units of the distance; a soft loss may have 0.
    """
    plot = make_subplots(
        rows=len(parts), cols=1, shared_xaxes=True, vertical_spacing=0.12, subplot_titles=[title for title, _ in parts]
    )
    for row, (_, part) in enumerate(parts, start=1):
        for name, counts in (("positive", part.positive), ("negative", part.negative)):
            x, y = _steps(part.edges, counts)
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
        line = {"width": 1.5, "dash": "dash", "color": COLOURS["neutral"]}
        plot.add_vline(x=middle, line=line, row=row, col=1)
        if margin:
            said = {"annotation_text": f"margin {margin:.3g}", "annotation_position": "top left"}
            plot.add_vrect(
                x0=middle, x1=middle + margin, fillcolor=COLOURS["semi-hard"], opacity=0.22, line_width=0,
                row=row, col=1, **said,
            )  # fmt: skip
            plot.add_vline(x=middle + margin, line=line, row=row, col=1)
    plot.update_yaxes(showticklabels=False, rangemode="tozero", title_text="share of pairs")
    plot.update_xaxes(title_text="distance", row=len(parts), col=1)
    plot.update_xaxes(showticklabels=True)
    legend = {"orientation": "h", "x": 0, "y": 1.0 + 0.05 * len(parts), "yanchor": "bottom"}
    plot.update_layout(
        height=140 + 230 * len(parts), margin={"l": 36, "r": 12, "t": 92, "b": 48}, legend=legend, bargap=0
    )
    return plot


def margins_plot(part: Separation, margin: float) -> go.Figure:
    """Shares of easy, semi-hard and hard triplets at each margin, as areas, with the run's own drawn in."""
    plot = go.Figure()
    for word, share in (("hard", part.hard), ("semi-hard", part.semihard), ("easy", part.easy)):
        plot.add_scatter(
            x=part.margins.tolist(),
            y=(100 * share).tolist(),
            name=word,
            mode="lines",
            stackgroup="shares",
            line={"width": 0.5, "color": COLOURS[word]},
            hovertemplate="%{y:.1f} %",
        )
    plot.add_vline(x=margin, line={"width": 1.5, "dash": "dash", "color": COLOURS["neutral"]})
    plot.update_layout(height=280, xaxis_title="margin", yaxis_title="% of valid triplets", yaxis_range=[0, 100])
    plot.update_layout(hovermode="x unified")
    return plot


def shares_at(part: Separation, margin: float) -> str:
    """Shares of easy, semi-hard and hard at a margin, in words."""
    place = int((part.margins - margin).abs().argmin())
    shares = ((part.easy, "easy"), (part.semihard, "semi-hard"), (part.hard, "hard"))
    return ", ".join(f"{100 * float(share[place]):.1f} % {word}" for share, word in shares)


def _steps(edges: Tensor, counts: Tensor) -> tuple[list[float], list[float]]:
    """A histogram as a line that rises from 0 and returns to it; its area is 1."""
    width = (edges[1:] - edges[:-1]).clamp(min=1e-12)
    height = counts.double() / width / counts.sum().clamp(min=1)
    return edges.tolist(), torch.cat([height, height.new_zeros(1)]).tolist()
