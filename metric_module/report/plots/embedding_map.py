"""Embeddings in two dimensions.

Shapes: N = samples, n = points, D = embedding size.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.metadata import distribution

import plotly.graph_objects as go
import torch
from torch import Tensor

from metric_module.report.plots.shares import COLOURS


def pca(embeddings: Tensor, rows: Tensor) -> tuple[Tensor, float]:
    """Project embeddings onto the two directions in which all of them vary most.

    Args:
        embeddings: All embeddings ``(N, D)``.
        rows: Rows to project, int64 ``(n,)``.

    Returns:
        Coordinates ``(n, 2)``, with the sign of each axis such that its largest component is positive, and the share
        of the variance that the two directions contain, from 0 to 1.

    Example:
        >>> plane, share = pca(torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 2]))
        >>> plane[:, 0].tolist(), round(share, 3)
        ([-2.0, 2.0], 1.0)
    """
    centred = embeddings.double() - embeddings.double().mean(dim=0)
    values, axes = torch.linalg.eigh(centred.T @ centred)  # (D,), (D, D), rising
    axes = axes.flip(1)[:, :2]  # (D, 2)
    axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    plane = centred[rows] @ axes  # (n, 2 or 1)
    if plane.shape[1] == 1:
        plane = torch.cat([plane, torch.zeros_like(plane)], dim=1)
    return plane, float(values.flip(0)[:2].sum() / values.sum().clamp(min=1e-30))


def umap(embeddings: Tensor) -> Tensor | None:
    """Project embeddings ``(n, D)`` to ``(n, 2)`` by UMAP with a fixed seed.

    Returns None without umap-learn, or for fewer than four embeddings.
    """
    if len(embeddings) < 4:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            distribution("umap-learn")  # a umap.py of the working folder, which any run may have written, is another
            from umap import UMAP
        except ImportError:
            return None
        neighbours = min(15, len(embeddings) - 1)
        placed = UMAP(n_components=2, n_neighbors=neighbours, random_state=0).fit_transform(embeddings.float().numpy())
    return torch.from_numpy(placed).double()


def map_plot(planes: dict[str, Tensor], ids: Sequence[int], right: Sequence[bool | None]) -> go.Figure:
    """Plot points in the colour of their nearest neighbour's class, right or wrong.

    Args:
        planes: Coordinates ``(n, 2)`` by the name of the projection; with several, a switch chooses.
        ids: Id of each point's sample, which the page's script shows on hover.
        right: Whether the nearest neighbour of each point has its class; None for a point that is not a query.
    """
    kinds = {
        "right at rank 1": (True, COLOURS["positive"], "circle"),
        "wrong at rank 1": (False, COLOURS["hard"], "x"),
        "no query": (None, COLOURS["neutral"], "circle-open"),
    }
    plot = go.Figure()
    plane = next(iter(planes.values()))
    shown = []
    for name, (kind, colour, symbol) in kinds.items():
        group = [place for place, value in enumerate(right) if value is kind]
        if group:
            shown.append(group)
            plot.add_scatter(
                x=plane[group, 0].tolist(),
                y=plane[group, 1].tolist(),
                customdata=[ids[place] for place in group],
                hoverinfo="none",
                mode="markers",
                name=name,
                marker={"size": 7, "opacity": 0.75, "color": colour, "symbol": symbol},
            )
    if len(planes) > 1:
        buttons = [
            {
                "label": name,
                "method": "restyle",
                "args": [{"x": [p[g, 0].tolist() for g in shown], "y": [p[g, 1].tolist() for g in shown]}],
            }
            for name, p in planes.items()
        ]
        menu = {"type": "buttons", "direction": "right", "buttons": buttons, "x": 0, "y": -0.02, "xanchor": "left"}
        look = {"yanchor": "top", "bgcolor": "#d5dbe1", "font": {"color": "#1d2228"}}  # plotly's active one is white
        plot.update_layout(updatemenus=[{**menu, **look}])
    plot.update_layout(height=520, showlegend=True, dragmode="pan", margin={"l": 8, "r": 8, "t": 40, "b": 56})
    plot.update_xaxes(showticklabels=False, zeroline=False, showgrid=False)
    plot.update_yaxes(showticklabels=False, zeroline=False, showgrid=False)
    return plot
