"""New classes made of whole classes of a batch, turned or mirrored.

Legend: B = images, C = channels, S = side in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module.batch import Batch
from metric_module.errors import UserError
from metric_module.keyed_random import combine, keyed_uniform

CLASS_TURNS = 4
TURNS = 8
"""Number of symmetries of a square: flips left-right, upside down and along the diagonal, and their combinations."""
IMAGE_TURNS = 0.6
"""Share of the classes of images to turn by default; docs/small_data.md compares it with none."""


def turn_batch(batch: Batch, share: float, *, seed: int, epoch: int) -> Batch:
    """Turn whole classes of a training batch, as :func:`turn_classes` does: a function of (seed, epoch, class).

    Args:
        batch: Batch of square images.
        share: Probability that a class is turned; 0 leaves the batch unchanged.
        seed: Seed of the draws.
        epoch: Epoch of training; another epoch turns other classes.
    """
    if not share:
        return batch
    keys = combine(seed, CLASS_TURNS, epoch, batch.labels)  # (B,)
    inputs, labels = turn_classes(batch.inputs, batch.labels, keys, share)
    return batch._replace(inputs=inputs, labels=labels)


def turn_classes(images: Tensor, labels: Tensor, keys: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Turn some classes of a batch, each by one symmetry of the square for all its images, and relabel them.

    A turned class is a new class (Santoro et al. 2016 and Vinyals et al. 2016 do so with quarter turns). The network
    sees up to eight times as many classes and still learns to distinguish left from right, which mirroring single
    images would teach it to ignore.

    Args:
        images: ``(B, C, S, S)``.
        labels: Class of each image, int64 ``(B,)``.
        keys: Int64 ``(B,)``, equal for images of one class, see :func:`metric_module.keyed_random.combine`.
        share: Probability that a class is turned; the identity is one of its eight turns.

    Returns:
        Images ``(B, C, S, S)``, and labels ``8 * label + turn``, int64 ``(B,)``.

    Raises:
        UserError: The images are not square.

    Example:
        >>> images, labels = turn_classes(torch.zeros(1, 3, 4, 4), torch.tensor([5]), torch.tensor([1]), share=0)
        >>> labels
        tensor([40])
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[2] != images.shape[3]:
        got = f"shape {list(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise UserError(f"class_turns: expected square images [B, C, S, S], got {got}")
    draws = keyed_uniform(keys, 2)  # (B, 2)
    turns = torch.where(draws[:, 0] < share, (TURNS * draws[:, 1]).long(), 0)  # (B,)
    turned = images.clone()  # (B, C, S, S)
    for bit, axis in ((1, 3), (2, 2)):
        rows = (turns & bit).nonzero()[:, 0]  # (n,)
        turned[rows] = turned[rows].flip(axis)
    rows = (turns & 4).nonzero()[:, 0]  # (n,)
    turned[rows] = turned[rows].mT
    return turned, TURNS * labels + turns
