"""Few-shot figures: classification among classes of which only a few samples are given.

Shapes: N = samples, E = episodes, W = ways, S = support samples (shots), Q = queries of a class, D = embedding size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metric_module.distances import Distance
from metric_module.errors import NotComputableError, UserError
from metric_module.evaluation.exact.any_distance import exact_distance
from metric_module.evaluation.inputs import by_class, check_items
from metric_module.functional import full_precision
from metric_module.keyed_random import combine, keyed_uniform


def few_shot_metrics(
    embeddings: Tensor,
    labels: Tensor,
    ids: Tensor | None = None,
    *,
    distance: Distance | None = None,
    ways: int = 5,
    shots: Sequence[int] = (1, 5),
    queries: int = 15,
    episodes: int = 600,
    seed: int = 0,
) -> dict[str, float]:
    """Measure W-way S-shot classification by the nearest class mean (Snell et al. 2017, equation 1).

    An episode draws W classes, and from each class S support samples and up to ``queries`` other samples. A query is
    right if the mean of its class's support is closer than all other means: a tie is a miss. The episodes depend on the
    seed, the labels and the ids only, so that two models are compared on the same ones.

    Args:
        embeddings: Samples ``(N, D)``, floating point.
        labels: Integers ``(N,)``.
        ids: Integers ``(N,)``, each once; the default is the row number.
        distance: The distance from a query to a mean; None is Euclidean.
        ways: Number of classes in an episode, W.
        shots: Values of S; each gives figures of its own.
        queries: Most queries of a class in an episode.
        episodes: Number of episodes.
        seed: Seed of the episodes.

    Returns:
        For each S ``accuracy_W_way_S_shot``, the mean over episodes, in [0, 1], and ``..._interval``, half the width of
        the 95 % confidence interval of that mean.

    Raises:
        UserError: If a shape, type or number is wrong, or fewer than W classes have more than S samples.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [2.0], [20.0], [21.0], [22.0]])
        >>> few_shot_metrics(points, torch.tensor([7, 7, 7, 8, 8, 8]), ways=2, shots=(1,), episodes=10)
        {'accuracy_2_way_1_shot': 1.0, 'accuracy_2_way_1_shot_interval': 0.0}
    """
    check_episodes(ways, shots, queries, episodes)
    samples = check_items(embeddings, labels, ids, None)
    order, classes, size = by_class(samples.labels, samples.ids)  # (N,), (C,), (C,)
    measure = exact_distance(distance, samples.embeddings.device)
    figures: dict[str, float] = {}
    with torch.no_grad(), full_precision(samples.embeddings.device.type):
        for shot in shots:
            large = (size > shot).nonzero().flatten()  # (C',)
            if len(large) < ways:
                raise NotComputableError(
                    f"few-shot: expected at least {ways} classes of more than {shot} samples, got {len(large)} "
                    f"of {len(classes)}; lower ways or shots"
                )
            start, count = (size.cumsum(0) - size)[large], size[large]
            keys = combine(seed, shot, torch.arange(episodes, device=size.device))  # (E,)
            drawn = keyed_uniform(keys, len(large)).topk(ways, dim=1).indices  # (E, W)
            found = []
            for key, places in zip(keys, drawn, strict=True):
                chosen = _choose(combine(key, places), count[places], shot + queries)  # (W, S + Q)
                rows = torch.where(chosen < 0, -1, order[start[places, None] + chosen.clamp(min=0)])
                found.append(_accuracy(samples.embeddings, rows, shot, measure))
            accuracy = torch.tensor(found, dtype=torch.float64)  # (E,)
            name = accuracy_name(ways, shot)
            error = float(accuracy.std()) / episodes**0.5
            figures |= {name: float(accuracy.mean()), f"{name}_interval": 1.96 * error}
    return figures


def check_episodes(ways: int, shots: Sequence[int], queries: int, episodes: int) -> None:
    """Check the arguments that describe the episodes.

    Args:
        ways: Number of classes in an episode, at least 2.
        shots: Numbers of support samples of a class, different and at least 1.
        queries: Most queries of a class, at least 1.
        episodes: Number of episodes, at least 2.

    Raises:
        UserError: If a number is too small, or a number of shots comes twice.
    """
    for name, value, least in (("ways", ways, 2), ("queries", queries, 1), ("episodes", episodes, 2)):
        if value < least:
            raise UserError(f"{name}: expected an integer >= {least}, got {value}")
    if not shots or min(shots) < 1 or len(set(shots)) != len(shots):
        raise UserError(f"shots: expected different integers >= 1, got {list(shots)}")


def accuracy_name(ways: int, shot: int) -> str:
    """Name the accuracy among ``ways`` classes of which ``shot`` samples are given."""
    return f"accuracy_{ways}_way_{shot}_shot"


def _choose(keys: Tensor, size: Tensor, most: int) -> Tensor:
    """Draw up to ``most`` different places in [0, size) for each key, in random order.

    Args:
        keys: Random keys ``(W,)``.
        size: Number of places of each key ``(W,)``.
        most: Most places to draw.

    Returns:
        Places, int64 ``(W, K)`` with K <= most, -1 where a key has fewer.
    """
    largest = int(size.max())
    drawn = keyed_uniform(keys, largest)  # (W, largest)
    place = torch.arange(largest, device=size.device)
    order = drawn.masked_fill(place >= size[:, None], 2.0).argsort(dim=1, stable=True)[:, :most]  # (W, at most most)
    return torch.where(torch.arange(order.shape[1], device=size.device) < size[:, None], order, -1)


def _accuracy(embeddings: Tensor, rows: Tensor, shot: int, measure: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Compute the share of right answers in one episode with rows ``(W, S + Q)``, -1 where a class has fewer."""
    means = embeddings[rows[:, :shot]].double().mean(dim=1)  # (W, D)
    truth, place = (rows[:, shot:] >= 0).nonzero(as_tuple=True)  # (q,), (q,)
    distances = measure(embeddings[rows[truth, shot + place]].double(), means)  # (q, W)
    own = distances.gather(1, truth[:, None])  # (q, 1)
    closer = (distances <= own).sum(dim=1)  # (q,), including its own mean
    return float((closer == 1).double().mean())
