"""Instance figures: whether the samples of a group (pixels of a scene) cluster into its instances.

Shapes: N = samples, n = samples of a group, T = thresholds, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metric_module.distances import Distance
from metric_module.errors import UserError
from metric_module.evaluation.exact.any_distance import exact_distance
from metric_module.evaluation.inputs import check_items

CANDIDATES = 64

Integers = npt.NDArray[np.int64]


def instance_metrics(
    embeddings: Tensor,
    labels: Tensor,
    ids: Tensor | None = None,
    *,
    groups: Tensor,
    distance: Distance | None = None,
    threshold: float | None = None,
) -> dict[str, float]:
    """Measure how well clusters within each group agree with its instances, without using the number of instances.

    Each group is clustered on its own: clusters are joined, the two with the smallest mean distance first, up to the
    threshold (average linkage). ``ari`` is the mean over groups of the adjusted Rand index (Hubert and Arabie 1985)
    of all samples of the group: 1 for equal partitions, 0 on average for a random one.

    Args:
        embeddings: Samples ``(N, D)``, floating point.
        labels: Instance of each sample, integers ``(N,)``.
        ids: Not used; all evaluations have the same first three arguments.
        groups: Group of each sample, integers ``(N,)``. Samples of two groups are never compared.
        distance: The distance; None is Euclidean. One that is not symmetric is averaged over both directions.
        threshold: Distance at which to stop, found on other data. None tries 64 and uses the one with the best mean,
            which makes ``ari`` a little better than it would be on new data.

    Returns:
        ``ari``, ``groups``, the number of groups it is averaged over, and without a threshold ``best_threshold``.

    Raises:
        UserError: If a shape, type or number is wrong, or scikit-learn, which installs scipy, is missing.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [20.0], [21.0], [0.0], [30.0]])
        >>> instance_metrics(points, torch.tensor([1, 1, 2, 2, 3, 4]), groups=torch.tensor([0, 0, 0, 0, 1, 1]))["ari"]
        1.0
    """
    hierarchy = _hierarchy()
    samples = check_items(embeddings, labels, None, groups)
    assert samples.groups is not None
    if not len(samples.labels):
        raise UserError("instances: expected at least one sample, got none")
    measure = exact_distance(distance, samples.embeddings.device)
    trees: list[tuple[Any, Integers]] = []
    for rows in _members(samples.groups):
        inside = samples.embeddings[rows].double()  # (n, D)
        between = measure(inside, inside).cpu()  # (n, n)
        pairs = torch.triu_indices(len(rows), len(rows), offset=1)  # (2, n (n - 1) / 2)
        close = (between + between.T)[pairs[0], pairs[1]] / 2
        tree = hierarchy.linkage(close.numpy(), "average") if len(rows) > 1 else None
        trees.append((tree, samples.labels[rows].cpu().numpy()))
    highest = max((float(tree[-1, 2]) for tree, _ in trees if tree is not None), default=0.0)
    given = np.array([threshold]) if threshold is not None else np.linspace(0, highest, CANDIDATES)  # (T,)
    found = np.array([[_agreement(hierarchy, *tree, height) for height in given] for tree in trees]).mean(axis=0)
    best = int(found.argmax())
    figures = {"ari": float(found[best]), "groups": float(len(trees))}
    return figures if threshold is not None else figures | {"best_threshold": float(given[best])}


def adjusted_rand_index(truth: Integers, found: Integers) -> float:
    """Compare two partitions of the same samples, corrected for chance (Hubert and Arabie 1985, equation 5).

    scikit-learn's ``adjusted_rand_score`` returns the same number, but its checks take so long that
    :func:`instance_metrics`, which needs 64 values for each group, would take five times as long.

    Args:
        truth: Number of the part that each sample belongs to, ``(n,)``.
        found: The same for the other partition, ``(n,)``.

    Returns:
        1 for equal partitions, 0 on average for random ones.

    Example:
        >>> adjusted_rand_index(np.array([0, 0, 1, 1]), np.array([5, 5, 5, 7]))
        0.0
    """
    _, row = np.unique(truth, return_inverse=True)
    names, column = np.unique(found, return_inverse=True)
    table = np.bincount(row * len(names) + column)
    both, first, second = (
        float((count * (count - 1) // 2).sum()) for count in (table, np.bincount(row), np.bincount(column))
    )
    pairs = len(row) * (len(row) - 1) / 2
    expected = first * second / pairs if pairs else 0.0
    most = (first + second) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def _members(groups: Tensor) -> Iterator[Tensor]:
    """List the rows of each group, int64 ``(n,)``, in order of group and of row."""
    order = groups.argsort(stable=True)  # (N,)
    sizes = torch.unique(groups, return_counts=True)[1]
    yield from torch.split(order, sizes.tolist())


def _agreement(hierarchy: Any, tree: Any, truth: Integers, height: float) -> float:
    """Compute the index of a group whose tree is cut at ``height``; a group of one sample has no tree."""
    return 1.0 if tree is None else adjusted_rand_index(truth, hierarchy.fcluster(tree, height, "distance"))


def _hierarchy() -> Any:
    """Import scipy's hierarchical clustering."""
    try:
        from scipy.cluster import hierarchy
    except ModuleNotFoundError:
        raise UserError("instances: needs scikit-learn; pip install 'lightning-triplets[clustering]'") from None
    return hierarchy
