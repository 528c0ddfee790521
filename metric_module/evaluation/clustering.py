"""Clustering figures: whether clusters that k-means finds without labels agree with the classes.

Shapes: N = samples, D = embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module.distances import Distance, EuclideanForm
from metric_module.errors import NotComputableError, UserError
from metric_module.evaluation.exact.any_distance import form_or_copy
from metric_module.evaluation.inputs import check_items


def clustering_metrics(
    embeddings: Tensor,
    labels: Tensor,
    ids: Tensor | None = None,
    *,
    distance: Distance | None = None,
    runs: int = 1,
    seed: int = 0,
) -> dict[str, float]:
    """Measure how well k-means clusters, one for each class, agree with the classes.

    ``nmi`` is the mutual information over the arithmetic mean of the entropies; ``ami`` is corrected for chance (Vinh,
    Epps and Bailey 2010). ``nmi`` grows with the number of clusters even for random clusters: compare it only between
    models on the same samples. scikit-learn's k-means runs on samples in order of their coordinates, so that the order
    of rows does not matter.

    Args:
        embeddings: Samples ``(N, D)``, floating point.
        labels: Integers ``(N,)``.
        ids: Not used; all evaluations have the same first three arguments.
        distance: A distance with a Euclidean form, such as ``Euclidean``, ``SquaredEuclidean`` or ``Cosine`` (k-means
            of unit vectors); None is Euclidean.
        runs: Number of starts; the one with the smallest sum of squares is used.
        seed: Seed of the starts.

    Returns:
        ``nmi`` and ``ami``.

    Raises:
        UserError: If a shape, type or number is wrong, the distance has no Euclidean form, there are fewer than two
            classes, or scikit-learn is not installed.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [20.0], [21.0]])
        >>> clustering_metrics(points, torch.tensor([7, 7, 8, 8]))
        {'nmi': 1.0, 'ami': 1.0}
    """
    try:
        from sklearn.cluster import KMeans
        from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        raise UserError("clustering: needs scikit-learn; pip install 'lightning-triplets[clustering]'") from None
    check_runs(runs)
    samples = check_items(embeddings, labels, None, None)
    form = form_or_copy(distance, torch.device("cpu"))
    if not isinstance(form, EuclideanForm):
        raise UserError(
            "clustering: expected a distance that follows from the Euclidean one, such as Euclidean, SquaredEuclidean "
            f"or Cosine, for k-means, got {type(distance).__name__}"
        )
    rows = form.map(samples.embeddings.double().cpu())  # (N, E)
    classes, truth = torch.unique(samples.labels.cpu(), return_inverse=True)
    if len(classes) < 2:
        raise NotComputableError(f"clustering: expected at least 2 classes, got {len(classes)}")
    unlike, place = torch.unique(rows, dim=0, return_inverse=True)
    order = place.argsort(stable=True)  # by coordinates, so that equal rows stay together
    with threadpool_limits(1):  # sums over threads would round in another order on another machine
        means = KMeans(min(len(classes), len(unlike)), n_init=runs, random_state=seed)
        found = means.fit_predict(rows[order].numpy())
    truth = truth[order]
    return {
        "nmi": float(normalized_mutual_info_score(truth, found)),
        "ami": float(adjusted_mutual_info_score(truth, found)),
    }


def check_runs(runs: int) -> None:
    """Check the number of starts.

    Raises:
        UserError: If it is below 1.
    """
    if runs < 1:
        raise UserError(f"runs: expected an integer >= 1, got {runs}")
