"""Draw one anchor, its positive and its negatives at their distances, for docs/triplet_loss.md.

    python -m benchmarks.triplets --run <run>

Shapes: N = samples of the test classes, D = embedding size.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules import EmojiDataModule
from metric_module import Embedder, triplet_loss

COLOURS = {"hard": "#e9a3a3", "semi-hard": "#e6d28c", "easy": "#9fcfae"}
INK, PAPER = "#20262d", "#fbfbf9"
SHOWN = {"hard": 2, "semi-hard": 3, "easy": 3}


class Scene(NamedTuple):
    """One anchor and what is drawn with it: pictures and names, and the distance of each to the anchor."""

    anchor: int
    positive: int
    negatives: list[int]
    distances: Tensor  # (N,)
    pictures: list[Image.Image]
    names: list[str]


def scene(run: Path, name: str, margin: float) -> Scene:
    """Choose a positive pair of the class with a few hard negatives, and negatives of each category."""
    data = EmojiDataModule()
    ids = data.samples.splits["test"]
    embedder = Embedder.load(run, device="cpu")
    pictures = [picture for picture in data.show(ids.tolist()) if isinstance(picture, Image.Image)]
    embeddings = embedder.embed(pictures)  # (N, D)
    distances = embedder.distance(embeddings, embeddings)  # (N, N)
    names = data.class_names_of(ids.tolist())
    anchor, positive = closest_to_three(distances, data.samples.labels[ids], [one == name for one in names])
    chosen = spread(distances[anchor], distances[anchor, positive].item(), margin, names, name)
    return Scene(anchor, positive, chosen, distances[anchor], pictures, names)


def closest_to_three(distances: Tensor, labels: Tensor, of_class: list[bool]) -> tuple[int, int]:
    """Find the positive pair of one class whose hard negatives are of close to three classes."""
    rows = torch.tensor(of_class).nonzero().flatten().tolist()
    pairs = [(a, p) for a in rows for p in rows if a != p]

    def hard(pair: tuple[int, int]) -> int:
        """Number of classes among the hard negatives."""
        row = distances[pair[0]]  # (N,)
        return len({*labels[(row <= row[pair[1]]) & (labels != labels[pair[0]])].tolist()})

    return min(pairs, key=lambda pair: abs(hard(pair) - 3))


def spread(distances: Tensor, d_ap: float, margin: float, names: list[str], own: str) -> list[int]:
    """Choose negatives spread evenly over the distances of each category, no class twice."""
    spans = {"hard": (0.0, d_ap), "semi-hard": (d_ap, d_ap + margin), "easy": (d_ap + margin, d_ap + 2.2 * margin)}
    chosen: list[int] = []
    for category, (low, high) in spans.items():
        inside = ((distances > low) & (distances <= high)).nonzero().flatten().tolist()
        start = min(distances[row].item() for row in inside if names[row] != own) if category == "hard" else low
        for place in range(SHOWN[category]):
            wanted = start + (high - start) * (place + 0.5) / SHOWN[category]
            free = [row for row in inside if names[row] not in {own, *(names[other] for other in chosen)}]
            chosen.append(min(free, key=lambda row: abs(distances[row].item() - wanted)))
    return chosen


def draw(found: Scene, margin: float, path: Path) -> None:
    """Draw pictures at their distances over the three zones, and the loss of each distance below."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    d_ap = found.distances[found.positive].item()
    end = found.distances[found.negatives].max().item() + 0.1
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 6.2), sharex=True, height_ratios=(3.7, 1.3), facecolor=PAPER)
    edges = {"hard": (0.0, d_ap), "semi-hard": (d_ap, d_ap + margin), "easy": (d_ap + margin, end)}
    for axes in (top, bottom):
        axes.set(facecolor=PAPER, xlim=(-0.09, end))
        axes.spines[["top", "right"]].set_visible(False)
        for category, (low, high) in edges.items():
            axes.axvspan(low, high, color=COLOURS[category], alpha=0.75, linewidth=0)
    for category, (low, high) in edges.items():
        top.text((low + high) / 2, 3.36, f"{category} negatives", ha="center", weight="bold", color=INK)
    _put(top, found, found.anchor, 1.3, "anchor")
    _put(top, found, found.positive, 2.55, f"positive\n{d_ap:.2f}")
    for place, row in enumerate(found.negatives):
        _put(top, found, row, (0.5, 1.45)[place % 2], f"{found.distances[row].item():.2f}")
    arrow = {"arrowstyle": "<->", "color": INK, "shrinkA": 0, "shrinkB": 0}
    top.annotate("", (d_ap + margin, 3.2), (d_ap, 3.2), arrowprops=arrow)
    top.text(d_ap + margin / 2, 3.12, f"margin {margin:g}", ha="center", va="top", color=INK)
    top.set(ylim=(0, 3.6), yticks=[])
    top.spines["left"].set_visible(False)
    line = torch.linspace(0, end, 400)
    bottom.plot(line, triplet_loss(torch.full_like(line, d_ap), line, margin), color=INK)
    bottom.set(xlabel="distance to the anchor", ylabel="loss of\nthe triplet", ylim=(0, d_ap + margin))
    figure.tight_layout()
    figure.savefig(path, dpi=130, facecolor=PAPER)


def _put(axes: Any, found: Scene, row: int, height: float, text: str) -> None:
    """Put one picture at its distance, with a line down to the axis and a caption."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    x = 0.0 if row == found.anchor else found.distances[row].item()
    axes.plot([x, x], [0, height], color=INK, linewidth=0.8, zorder=1)
    axes.add_artist(
        AnnotationBbox(OffsetImage(np.asarray(found.pictures[row]), zoom=0.62), (x, height), pad=0.12, zorder=2)
    )
    axes.text(x, height - 0.33, text, ha="center", va="top", fontsize=8.5, color=INK, zorder=3,
              bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.8})  # fmt: skip


def main() -> None:
    """Read the arguments, draw, and print the names and distances."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a run of the default recipe")
    parser.add_argument("--of", default="frowning-face", help="class of the anchor")
    parser.add_argument("--margin", type=float, default=0.4)
    parser.add_argument("--to", type=Path, default=Path("docs/figures/triplets.png"))
    options = parser.parse_args()
    found = scene(options.run, options.of, options.margin)
    draw(found, options.margin, options.to)
    for row in (found.positive, *found.negatives):
        print(f"{found.distances[row].item():.2f} {found.names[row]}")


if __name__ == "__main__":
    main()
