"""One palette of at most 256 colours for a stack of images, without dithering.

Pillow's ``quantize`` cannot replace it: the shipped sheet, and every figure of the default data set, would change.

Legend: N = images, S = side in pixels, C = colour cells in use, K = palette entries.

All arithmetic is on integers held in float64 (exact in any order of summation), so the result does not depend on the
machine or its number of threads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

WHITE = 255
CELL_BITS = 6
ITERATIONS = 40


def quantise(images: Pixels, colours: int = 256) -> tuple[Pixels, Pixels]:
    """Map RGB images to one palette, fitted by k-means over colour cells; pure white stays white.

    Colours are weighted by (number of pixels)^0.75: large areas matter, and a colour that only a few images use still
    keeps its own entry.

    Args:
        images: RGB images ``(N, S, S, 3)``.
        colours: Maximum size of the palette, including white.

    Returns:
        Palette indices ``(N, S, S)`` and the palette ``(K, 3)`` with ``K <= colours``.
    """
    cells = _cells(images)  # (N, S, S)
    used, centres, counts = _cell_colours(images, cells)  # (C,), (C, 3), (C,)
    white = (images == WHITE).all(axis=-1)  # (N, S, S)
    counts[centres.min(axis=1) == WHITE] -= white.sum()
    weights = np.rint(np.sqrt(counts.clip(min=0) * np.sqrt(counts.clip(min=0))))  # (C,)
    means = _k_means(centres[weights > 0], weights[weights > 0], colours - 1)  # (K - 1, 3)
    palette = np.unique(np.vstack([np.rint(means), np.full((1, 3), WHITE)]), axis=0)  # (K, 3), white is last
    table = np.zeros(1 << 3 * CELL_BITS, np.uint8)
    table[used] = _nearest(centres, palette)
    index = table[cells]  # (N, S, S)
    index[white] = len(palette) - 1
    return index, palette.astype(np.uint8)


def _cells(images: Pixels) -> npt.NDArray[np.int32]:
    """Compute the colour cell of each pixel from the leading bits of its three channels: ``(N, S, S)``."""
    high = (images >> (8 - CELL_BITS)).astype(np.int32)  # (N, S, S, 3)
    return (high[..., 0] << 2 * CELL_BITS) | (high[..., 1] << CELL_BITS) | high[..., 2]


def _cell_colours(images: Pixels, cells: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Return the cells in use ``(C,)``, their mean colours as whole numbers ``(C, 3)`` and pixel counts ``(C,)``."""
    flat = cells.reshape(-1)
    counts = np.bincount(flat).astype(np.float64)
    used = np.flatnonzero(counts)  # (C,)
    sums = [np.bincount(flat, weights=images[..., c].reshape(-1))[used] for c in range(3)]
    return used, np.rint(np.stack(sums, axis=1) / counts[used, None]), counts[used]


def _k_means(points: Floats, weights: Floats, clusters: int) -> Floats:
    """Run Lloyd's algorithm from a variance-splitting start; whole-number centres, ``(<= clusters, 3)``."""
    if not len(points):
        return np.zeros((0, 3))
    boxes = _split(points, weights, clusters)
    centres = np.stack([_mean(points[box], weights[box]) for box in boxes])
    for _ in range(ITERATIONS):
        owner = _nearest(points, centres)  # (C,)
        mass = np.bincount(owner, weights=weights, minlength=len(centres))  # (K,)
        sums = [np.bincount(owner, weights=weights * points[:, c], minlength=len(centres)) for c in range(3)]
        moved = np.rint(np.stack(sums, axis=1) / mass.clip(min=1)[:, None])
        centres = np.where(mass[:, None] > 0, moved, centres)
    return centres


def _split(points: Floats, weights: Floats, clusters: int) -> list[npt.NDArray[np.int64]]:
    """Split the box with the largest spread at the mean of that channel until there are enough boxes."""
    boxes = [np.arange(len(points))]
    spreads = [_spread(points, weights)]
    while len(boxes) < clusters:
        widest = max(range(len(boxes)), key=lambda i: spreads[i].max())
        if spreads[widest].max() == 0:
            break
        box, channel = boxes.pop(widest), int(spreads.pop(widest).argmax())
        below = points[box, channel] <= np.floor(np.average(points[box, channel], weights=weights[box]))
        for part in (box[below], box[~below]):
            boxes.append(part)
            spreads.append(_spread(points[part], weights[part]))
    return boxes


def _mean(points: Floats, weights: Floats) -> Floats:
    """Compute the weighted mean, rounded to whole numbers, ``(3,)``."""
    rounded: Floats = np.rint((weights[:, None] * points).sum(axis=0) / weights.sum())
    return rounded


def _spread(points: Floats, weights: Floats) -> Floats:
    """Compute the weighted squared deviation from the mean in each channel, ``(3,)``."""
    spread: Floats = (weights[:, None] * (points - _mean(points, weights)) ** 2).sum(axis=0)
    return spread


def _nearest(points: Floats, centres: Floats) -> npt.NDArray[np.intp]:
    """Find the nearest centre of each point, the first on a tie: ``(C, 3), (K, 3) -> (C,)``."""
    distances: Floats = (centres**2).sum(axis=1)[
        None
    ] - 2 * points @ centres.T  # (C, K), without the points' own squares
    nearest: npt.NDArray[np.intp] = distances.argmin(axis=1)
    return nearest
