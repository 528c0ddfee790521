"""Scenes composed of overlapping emoji, with instance masks.

Legend: N = drawings, T = side of a drawing in pixels, S = scenes, H = side of a scene, s = side of a drawing in a
scene, I = instances, i = instances already in a scene.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metric_module.keyed_random import combine, keyed_uniform

WHITE = 235
LEAST_INK = 0.2
LEAST_SEEN = 0.4
TRIES = 12
COUNTS = (3, 6)
SIZES = (20, 34)
COUNT, PLACE, BACKGROUND = 1, 2, 3


class Scenes(NamedTuple):
    """Scenes and their instances.

    Attributes:
        images: Uint8 ``(S, 3, H, H)``.
        masks: Uint8 ``(S, H, H)``: 0 for the background, the number of the instance in its scene from 1.
        drawings: Drawing of each instance, int64 ``(I,)``, ordered by scene and number.
    """

    images: Tensor
    masks: Tensor
    drawings: Tensor


def cut_out(drawings: Tensor) -> Tensor:
    """Find the pixels of each drawing: all but the white that is connected to the edge of the picture.

    Args:
        drawings: Drawings on white, uint8 ``(N, 3, T, T)``.

    Returns:
        Bool ``(N, T, T)``.

    Example:
        >>> ring = torch.full((1, 3, 5, 5), 255, dtype=torch.uint8)
        >>> ring[..., 1:4, 1:4] = 0
        >>> ring[..., 2, 2] = 255
        >>> int(cut_out(ring).sum())
        9
    """
    white = (drawings >= WHITE).all(dim=1)  # (N, T, T)
    outside = white.clone()
    outside[:, 1:-1, 1:-1] = False
    while True:
        grown = outside.clone()
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        grown[:, :, 1:] |= outside[:, :, :-1]
        grown[:, :, :-1] |= outside[:, :, 1:]
        grown &= white
        if torch.equal(grown, outside):
            return ~outside
        outside = grown


def compose(drawings: Tensor, inked: Tensor, rows: Tensor, keys: Tensor, size: int) -> Scenes:
    """Compose scenes of three to six drawings each, at random positions, later ones in front.

    At least two fifths of each drawing stay visible. A scene is a function of its key.

    Args:
        drawings: Drawings on white, uint8 ``(N, 3, T, T)``.
        inked: Pixels of each drawing, see :func:`cut_out`, bool ``(N, T, T)``.
        rows: Drawings to choose from, int64 ``(n,)``; nearly empty ones are skipped.
        keys: Key of each scene, int64 ``(S,)``.
        size: H.
    """
    rows = rows[inked[rows].float().mean(dim=(1, 2)) >= LEAST_INK]  # (n,)
    images = background(keys, size).mul_(255).round_().byte()  # (S, 3, H, H)
    masks = torch.zeros(len(keys), size, size, dtype=torch.uint8)  # (S, H, H)
    chosen: list[int] = []
    counts = COUNTS[0] + (keyed_uniform(combine(keys, COUNT), 1)[:, 0] * (COUNTS[1] - COUNTS[0] + 1)).long()  # (S,)
    for scene, count in enumerate(counts.tolist()):
        draws = keyed_uniform(combine(keys[scene], PLACE)[None], 4 * COUNTS[1] * TRIES).view(-1, 4).tolist()
        canvas, placed = images[scene].float() / 255, 0
        areas: list[int] = []
        for which, how_large, down, right in draws:
            if placed == count:
                break
            row = int(rows[int(which * len(rows))])
            sticker = resized(drawings[row], inked[row], int(SIZES[0] + how_large * (SIZES[1] - SIZES[0] + 1)))
            if _put(canvas, masks[scene], areas, sticker, down, right):
                chosen.append(row)
                placed += 1
        images[scene] = canvas.mul_(255).round_().byte()
    return Scenes(images, masks, torch.tensor(chosen))


def background(keys: Tensor, size: int) -> Tensor:
    """Draw smooth patches of colour with grain, in [0, 1]: int64 keys ``(S,)`` to float32 ``(S, 3, H, H)``."""
    coarse, fine = 3 * 4 * 4, size * size
    patches = keyed_uniform(combine(keys, BACKGROUND), coarse).float().view(-1, 3, 4, 4)  # (S, 3, 4, 4)
    smooth = F.interpolate(patches, size=(size, size), mode="bicubic")  # (S, 3, H, H)
    grain = torch.cat([keyed_uniform(key[None], fine).float() for key in combine(keys, BACKGROUND, 1)])  # (S, H * H)
    return (smooth + 0.2 * (grain.view(-1, 1, size, size) - 0.5)).clamp_(0, 1)


def resized(drawing: Tensor, inked: Tensor, size: int) -> Tensor:
    """Resize a drawing without its white background.

    Args:
        drawing: A drawing on white, uint8 ``(3, T, T)``.
        inked: Its pixels, bool ``(T, T)``.
        size: s.

    Returns:
        Colours multiplied by coverage, and coverage, in [0, 1], float32 ``(4, s, s)``.
    """
    cover = inked.float()  # (T, T)
    layers = torch.cat([drawing.float() / 255 * cover, cover[None]])[None]  # (1, 4, T, T)
    return F.interpolate(layers, size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]


def _put(canvas: Tensor, mask: Tensor, areas: list[int], sticker: Tensor, down: float, right: float) -> bool:
    """Put a sticker ``(4, s, s)`` in front of a canvas ``(3, H, H)``, unless it would hide too much of another.

    ``areas`` holds the area of each instance on the canvas; the sticker's area is appended.
    """
    size, room = sticker.shape[-1], canvas.shape[-1] - sticker.shape[-1] + 1
    top, left = int(down * room), int(right * room)
    covered = sticker[3] > 0.5  # (s, s)
    part = mask[top : top + size, left : left + size]  # (s, s)
    before, hidden = (pixels.long().bincount(minlength=len(areas) + 1) for pixels in (mask.flatten(), part[covered]))
    after = before - hidden  # (i + 1,)
    if any(left_over < LEAST_SEEN * area for left_over, area in zip(after[1:].tolist(), areas, strict=True)):
        return False
    areas.append(int(covered.sum()))
    part[covered] = len(areas)
    place = canvas[:, top : top + size, left : left + size]  # (3, s, s)
    place.copy_(sticker[:3] + place * (1 - sticker[3]))
    return True
