"""Whole classes of a batch, turned and mirrored into classes that the data set does not have.

Legend: B images, C channels, S x S pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module.batch import Batch
from metric_module.errors import UserError
from metric_module.keyed_random import combine, keyed_uniform

CLASS_TURNS = 4
TURNS = 8
"""The symmetries of a square: mirrored left and right, upside down, along the diagonal, or any of these together."""


def turn_batch(batch: Batch, share: float, *, seed: int, epoch: int) -> Batch:
    """Turn whole classes of a training batch, as :func:`turn_classes` does: a function of (seed, epoch, class).

    Args:
        batch: Of square images.
        share: Probability that a class is turned; 0 leaves the batch as it is.
        seed: Names the draws.
        epoch: In another epoch, other classes are turned.
    """
    if not share:
        return batch
    keys = combine(seed, CLASS_TURNS, epoch, batch.labels)  # (B,)
    inputs, labels = turn_classes(batch.inputs, batch.labels, keys, share)
    return batch._replace(inputs=inputs, labels=labels)


def check_share(share: float) -> None:
    """Accept a share of classes to turn.

    Raises:
        UserError: It is no probability.
    """
    if not 0 <= share <= 1:
        raise UserError(f"expected 0 <= class_turns <= 1, got {share}")


def turn_classes(images: Tensor, labels: Tensor, keys: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Turn some classes of a batch, each by one symmetry of the square for all of its images, and name them anew.

    A turned class is a class of its own (Santoro et al. 2016 and Vinyals et al. 2016 do so with quarter turns): the
    network sees up to eight times as many, and goes on telling left from right, which mirroring single images
    teaches it to ignore.

    Args:
        images: ``(B, C, S, S)``.
        labels: Class of each image, int64 ``(B,)``.
        keys: Int64 ``(B,)``, equal for images of one class; see :func:`metric_module.keyed_random.combine`.
        share: Probability that a class is turned; the identity is one of its eight turns.

    Returns:
        Images, and labels ``8 * label + turn``.

    Raises:
        UserError: The images are not square.

    Example:
        >>> images, labels = turn_classes(torch.zeros(1, 3, 4, 4), torch.tensor([5]), torch.tensor([1]), share=0)
        >>> labels
        tensor([40])
    """
    if images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise UserError(f"class_turns: expected square images [B, C, S, S], got shape {list(images.shape)}")
    draws = keyed_uniform(keys, 2)  # (B, 2)
    turns = torch.where(draws[:, 0] < share, (TURNS * draws[:, 1]).long(), 0)  # (B,)
    turned = images.clone()  # (B, C, S, S)
    for bit, change in ((1, _mirror), (2, _upside_down), (4, _transpose)):
        rows = (turns & bit).nonzero()[:, 0]  # (n,)
        turned[rows] = change(turned[rows])
    return turned, TURNS * labels + turns


def _mirror(images: Tensor) -> Tensor:
    return images.flip(3)


def _upside_down(images: Tensor) -> Tensor:
    return images.flip(2)


def _transpose(images: Tensor) -> Tensor:
    return images.transpose(2, 3)
