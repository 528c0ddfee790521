"""Popularity, successors and matrix factorisation on MovieLens-100k, split and measured as in experiment=movielens.

    python -m benchmarks.recommendation --path <folder with u.data>

The factorisation is that of `implicit` (pip install 'lightning-triplets[recommendation]'): alternating least squares
(Hu, Koren and Volinsky 2008) and Bayesian personalised ranking (Rendle et al. 2009). Its settings are chosen by
ndcg_at_10 on val over a grid, and test is read with the best, over three seeds. Successors are counted: which items
follow which in the histories of the users, as in a Markov chain of items (Rendle et al. 2010) without training.

Legend: U users, I items, D factors.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules import InteractionsDataModule, PairData
from metric_module.distances import DotProduct
from metric_module.evaluation import pair_retrieval_metrics
from metric_module.relations import Links

ALS = {
    "factors": (16, 32, 64, 128),
    "regularization": (1.0, 5.0, 10.0, 20.0),
    "alpha": (0.5, 1.0, 2.0, 5.0),
    "iterations": (15,),
}
BPR = {"factors": (32, 64), "learning_rate": (0.02, 0.05), "regularization": (0.01, 0.05), "iterations": (100, 300)}
SUCCESSORS = {"within": (5, 20), "decay": (0.03, 0.1, 0.3, 0.6)}
SHOWN = ("recall_at_20", "ndcg_at_10", "hit_rate_at_10", "mrr")


def figures(data: PairData, split: str, users: Tensor, items: Tensor) -> dict[str, float]:
    """The figures of a split from factors ``(U, D)`` and ``(I, D)``, whose products say who likes what."""
    sought = data.sought[split]
    return pair_retrieval_metrics(
        users[sought.queries],
        items,
        sought.positives,
        ignored=sought.ignored,
        distance=DotProduct(),
        at=(10, 20),
    )


def liked(data: PairData) -> tuple[Tensor, Tensor]:
    """User and item of each pair of training."""
    assert isinstance(data.positives, Links)
    return data.positives.pairs()


def popularity(data: PairData) -> tuple[Tensor, Tensor]:
    """Every user likes what most users liked."""
    assert data.reference is not None
    _, items = liked(data)
    return torch.ones(data.query.size, 1), items.bincount(minlength=data.reference.size)[:, None].float()


def successors(data: PairData, within: int, decay: float) -> tuple[Tensor, Tensor]:
    """Score each item by how often it followed the last ones of a user, ``(U, I)``, beside the identity ``(I, I)``."""
    assert data.reference is not None
    users, items = liked(data)  # in order of time
    counts = torch.zeros(data.reference.size, data.reference.size)  # (I, I)
    for gap in range(1, within + 1):
        same = users[:-gap] == users[gap:]
        counts.index_put_((items[:-gap][same], items[gap:][same]), torch.tensor(1 / gap), accumulate=True)
    often = items.bincount(minlength=len(counts)).clamp(min=1).sqrt()  # (I,)
    past = data.query.fetch(torch.arange(data.query.size))  # (U, L), -1 where there is none
    weight = (past >= 0) * torch.exp(-decay * torch.arange(past.shape[1]))  # (U, L)
    recent = torch.zeros(len(past), len(counts)).scatter_add_(1, past.clamp(min=0), weight)  # (U, I)
    return recent @ (counts / (often[:, None] * often)), torch.eye(len(counts))


def fitted(data: PairData, kind: str, settings: dict[str, Any], seed: int) -> tuple[Tensor, Tensor]:
    """Factors of users and items by one kind of baseline."""
    return successors(data, **settings) if kind == "successors" else factorisation(data, kind, settings, seed)


def factorisation(data: PairData, kind: str, settings: dict[str, Any], seed: int) -> tuple[Tensor, Tensor]:
    """Factors of users and items by `implicit`."""
    from implicit.als import AlternatingLeastSquares
    from implicit.bpr import BayesianPersonalizedRanking
    from scipy.sparse import csr_matrix

    assert data.reference is not None
    users, items = liked(data)
    shape = (data.query.size, data.reference.size)
    matrix = csr_matrix((np.ones(len(users), dtype=np.float32), (users.numpy(), items.numpy())), shape=shape)
    made = AlternatingLeastSquares if kind == "ALS" else BayesianPersonalizedRanking
    model = made(**settings, random_state=seed, num_threads=torch.get_num_threads())
    model.fit(matrix, show_progress=False)
    return torch.from_numpy(np.array(model.user_factors)), torch.from_numpy(np.array(model.item_factors))


def tuned(data: PairData, kind: str, grid: dict[str, tuple[Any, ...]], seeds: list[int]) -> list[dict[str, float]]:
    """Test figures of each seed with the settings that are best on val."""
    tried = []
    for values in itertools.product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        found = figures(data, "val", *fitted(data, kind, settings, seeds[0]))
        tried.append((found["ndcg_at_10"], values, settings))
    best = max(tried, key=lambda one: one[0])
    print(f"{kind}: val ndcg_at_10 {best[0]:.4f} of {len(tried)} settings with {best[2]}", flush=True)
    return [figures(data, "test", *fitted(data, kind, best[2], seed)) for seed in seeds]


def row(name: str, found: list[dict[str, float]]) -> str:
    """Mean and standard deviation over seeds."""
    cells = [
        f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")
        for values in ([one[figure] for one in found] for figure in SHOWN)
    ]
    return " | ".join([f"| {name}", *cells, ""])


def main() -> None:
    """Fit every baseline, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--path", required=True)
    parser.add_argument("--seeds", default="1,2,3")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    data = InteractionsDataModule(path=arguments.path, history=100).data
    print(" | ".join(["| on test", *SHOWN, ""]))
    print(row("popularity", [figures(data, "test", *popularity(data))]))
    for kind, grid in (("successors", SUCCESSORS), ("ALS", ALS), ("BPR", BPR)):
        start = time.perf_counter()
        print(row(kind, tuned(data, kind, grid, seeds)), f"({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
