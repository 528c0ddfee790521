"""Areas for the shares of easy, semi-hard and hard triplets; colours and dashed lines that all plots agree on."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

COLOURS = {
    "easy": "#3f9c5a",
    "semi-hard": "#c9a227",
    "hard": "#d1495b",
    "positive": "#3b82c4",
    "negative": "#d9772b",
    "neutral": "#8a8f98",
}
"""Colours by meaning, readable on a light and on a dark background."""

DASHED = {"width": 1.5, "dash": "dash", "color": COLOURS["neutral"]}


def add_shares(plot: go.Figure, kind: str, places: Sequence[float], shares: Sequence[float]) -> None:
    """Add the shares of one kind of triplets to a plot, as an area on top of those added before.

    Args:
        plot: The plot.
        kind: ``"hard"``, ``"semi-hard"`` or ``"easy"``.
        places: Positions on the horizontal axis.
        shares: The share at each position, from 0 to 1.
    """
    plot.add_scatter(
        x=places,
        y=[100 * share for share in shares],
        name=kind,
        mode="lines",
        stackgroup="shares",
        line={"width": 0.5, "color": COLOURS[kind]},
        hovertemplate="%{y:.1f} %",
    )
    plot.update_layout(yaxis_title="% of valid triplets", yaxis_range=[0, 100], hovermode="x unified")
