"""Open-set identification: name a probe by its nearest enrolled item, or reject it as unknown.

Shapes: N = samples, C = classes, M = enrolled items, Q = probes of enrolled classes, U = probes of other classes,
P = all probes, D = embedding size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.distances import Distance
from metric_module.errors import NotComputableError, UserError
from metric_module.evaluation.exact.nearest import nearest
from metric_module.evaluation.inputs import by_class, check_items
from metric_module.evaluation.verification.rates import check_rates, rate_name
from metric_module.keyed_random import combine, keyed_uniform

FAR = (1e-1, 1e-2, 1e-3)
"""The false positive identification rates of ``dir_at_far``."""


class Roles(NamedTuple):
    """Rows of the samples by what they are used for."""

    gallery: Tensor  # (M,) the enrolled items
    known: Tensor  # (Q,) the other samples of the enrolled classes
    unknown: Tensor  # (U,) all samples of the other classes


def identification_metrics(
    embeddings: Tensor,
    labels: Tensor,
    ids: Tensor | None = None,
    *,
    distance: Distance | None = None,
    enrolled: int = 1,
    far: Sequence[float] = FAR,
    seed: int = 0,
) -> dict[str, float]:
    r"""Measure how well probes are named by their nearest enrolled item, and samples of other classes rejected.

    Half of the classes are enrolled with their first K samples by id; their other samples are the known probes, and all
    samples of the other half are the unknown ones. A probe has the distance d to its nearest enrolled item, and is
    accepted at a threshold t if d <= t. Then

    - ``FPIR(t)`` = share of the unknown probes that are accepted
    - ``DIR(t)`` = share of the known probes that are accepted and closer to their class than to any other: a tie is a
      miss
    - ``dir_at_far_x`` = max of DIR(t) over the t with FPIR(t) <= x
    - ``identification_rate`` = DIR without a threshold: the closed set, rank 1.

    FPIR is the false positive identification rate, and DIR, the detection and identification rate, is ``1 - FNIR`` at
    rank 1, of Grother, Ngan and Hanaoka, "Face Recognition Vendor Test (FRVT) Part 2: Identification" (NISTIR 8271,
    2019). The classes are halved by the seed and the labels alone, so that two models are compared on the same ones,
    and figures do not depend on the order of rows.

    Args:
        embeddings: Samples ``(N, D)``, floating point.
        labels: Integers ``(N,)``.
        ids: Integers ``(N,)``, each once; the default is the row number.
        distance: The distance from a probe to an enrolled item; None is Euclidean.
        enrolled: Number of samples to enrol of each class, K. A class that has no more has no probes.
        far: The rates x, each in (0, 1). A rate below ``1 / U`` is left out: U probes cannot measure it.
        seed: Seed of the halves.

    Returns:
        The figures, in [0, 1], then ``known_probes``, ``unknown_probes`` and ``enrolled``, the numbers of samples.

    Raises:
        UserError: If a shape, type or number is wrong, there are fewer than 4 classes, or there is no known probe.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [10.0], [12.0], [2.5], [13.0], [30.0], [31.0]])
        >>> labels = torch.tensor([7, 7, 8, 8, 9, 9, 5, 5])
        >>> identification_metrics(points, labels, far=(0.25, 0.01))  # doctest: +NORMALIZE_WHITESPACE
        {'dir_at_far_2.5e-1': 0.5, 'identification_rate': 0.5,
         'known_probes': 2.0, 'unknown_probes': 4.0, 'enrolled': 2.0}
    """
    check_protocol(enrolled, far)
    samples = check_items(embeddings, labels, ids, None)
    roles = assign_roles(samples.labels, samples.ids, enrolled, seed)
    known, unknown = len(roles.known), len(roles.unknown)
    probes = torch.cat([roles.known, roles.unknown])  # (P,)
    # Of K + 1 neighbours, one is of another class; an own one that is not among them is farther away than that.
    near = nearest(samples.embeddings[probes], samples.embeddings[roles.gallery], enrolled + 1, distance)
    same = samples.labels[roles.gallery[near.positions]] == samples.labels[probes, None]  # (P, K + 1)
    own, other = (near.distances.masked_fill(left_out, torch.inf).amin(dim=1) for left_out in (~same, same))  # (P,)
    right = own[:known][own[:known] < other[:known]]
    wrong = other[known:].sort().values  # (U,)
    false = torch.searchsorted(wrong, wrong, right=True).double() / unknown  # (U,) FPIR at each distance
    figures, missing = {}, missing_rates(far, unknown)
    for rate in far:
        if (name := rate_name(rate, "dir")) not in missing:
            bound = wrong[false > rate][0]  # every threshold below it is allowed
            figures[name] = float((right < bound).sum()) / known
    figures["identification_rate"] = len(right) / known
    counts = {"known_probes": known, "unknown_probes": unknown, "enrolled": len(roles.gallery)}
    return figures | {name: float(count) for name, count in counts.items()}


def check_protocol(enrolled: int, far: Sequence[float]) -> None:
    """Check the arguments that describe the protocol.

    Args:
        enrolled: Number of samples to enrol of each class, at least 1.
        far: The false positive identification rates, different and in (0, 1).

    Raises:
        UserError: If a number is wrong.
    """
    if not isinstance(enrolled, int) or enrolled < 1:
        raise UserError(f"enrolled: expected an integer >= 1, got {enrolled}")
    check_rates(far)


def assign_roles(labels: Tensor, ids: Tensor | None, enrolled: int, seed: int) -> Roles:
    """Halve the classes by key, and enrol the first samples of each class of one half.

    Args:
        labels: Class of each sample, int64 ``(N,)``.
        ids: Id of each sample, int64 ``(N,)``; None: their rows.
        enrolled: Number of samples to enrol of each class.
        seed: Seed of the halves.

    Raises:
        NotComputableError: If there are fewer than 4 classes, or there is no known probe.
    """
    order, classes, size = by_class(labels, ids)  # (N,), (C,), (C,)
    half = len(classes) // 2
    if half < 2:
        raise NotComputableError(
            "identification: expected at least 4 classes, 2 to enrol and 2 of unknown samples, "
            f"got {len(classes)} (datamodule: labels, split)"
        )
    enrol = torch.zeros_like(size, dtype=torch.bool)  # (C,)
    enrol[keyed_uniform(combine(seed, classes), 1)[:, 0].argsort(stable=True)[:half]] = True
    place = torch.arange(len(order), device=order.device) - (size.cumsum(0) - size).repeat_interleave(size)  # (N,)
    inside, first = enrol.repeat_interleave(size), place < enrolled  # (N,), (N,)
    roles = Roles(order[inside & first], order[inside & ~first], order[~inside])
    if not len(roles.known):
        raise NotComputableError(
            f"identification: none of {half} enrolled classes has more than the {enrolled} enrolled samples "
            "(evaluation.identification: lower enrolled or change seed; datamodule: labels, split)"
        )
    return roles


def missing_rates(far: Sequence[float], unknown: int) -> dict[str, str]:
    """List the figures that need more unknown probes, with the reason.

    Args:
        far: The false positive identification rates.
        unknown: Number of unknown probes, U.
    """
    return {
        rate_name(rate, "dir"): f"expected at least {math.ceil(1 / rate)} unknown probes, got {unknown} "
        f"(evaluation.identification: leave {rate} out of far)"
        for rate in far
        if unknown < math.ceil(1 / rate)
    }
