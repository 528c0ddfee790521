"""The embeddings on a plane.

Shapes: N = samples, n = points, D = embedding size.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import plotly.graph_objects as go
import torch
from torch import Tensor

from metric_module.report.plots.colours import COLOURS


def pca(embeddings: Tensor, rows: Tensor) -> tuple[Tensor, float]:
    """Some embeddings on the plane in which all of them spread most, and the share of the variance that lies in it.

    Args:
        embeddings: All, ``(N, D)``.
        rows: Which to project, int64 ``(n,)``.

    Returns:
        ``(n, 2)``, each axis with its largest entry upwards, and a share in [0, 1].

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
    """UMAP of embeddings ``(n, D)``, ``(n, 2)``, with a seed of its own; None if umap-learn is not installed."""
    if len(embeddings) < 4:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from umap import UMAP
        except ImportError:
            return None
        neighbours = min(15, len(embeddings) - 1)
        placed = UMAP(n_components=2, n_neighbors=neighbours, random_state=0).fit_transform(embeddings.float().numpy())
    return torch.from_numpy(placed).double()


def map_plot(planes: dict[str, Tensor], ids: Sequence[int], right: Sequence[bool | None]) -> go.Figure:
    """Points by whether their nearest neighbour is of their class, with a switch between planes if there are several.

    Args:
        planes: Name and coordinates ``(n, 2)`` of each.
        ids: Which sample each point is; the page's script shows it on hover.
        right: Whether rank 1 is right; None for what is no query.
    """
    kinds = {
        "right at rank 1": (True, COLOURS["positive"], "circle"),
        "wrong at rank 1": (False, COLOURS["hard"], "x"),
        "no query": (None, COLOURS["neutral"], "circle-open"),
    }
    plot = go.Figure()
    groups = [[place for place, value in enumerate(right) if value is kind] for kind, _, _ in kinds.values()]
    plane = next(iter(planes.values()))
    for (name, (_, colour, symbol)), group in zip(kinds.items(), groups, strict=True):
        if group:
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
        shown = [group for group in groups if group]
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
