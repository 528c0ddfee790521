"""Compare verification figures with an oracle that lists every pair."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from metric_module import UserError
from metric_module.distances import Cosine, Distance, Euclidean, Manhattan, SquaredEuclidean
from metric_module.evaluation import roc_curve, verification_metrics
from metric_module.evaluation.verification.pair_counts import EuclideanPairs, PairCounts, count_pairs, pairs_of
from tests.helpers.blocks import small_blocks
from tests.helpers.points import cloud, grid, near_ties, side
from tests.oracles import retrieval as oracle
from tests.oracles.verification import Judged, judge, verification_figures

FAR = (0.3, 0.1, 0.01)
CASES: list[tuple[Distance | None, Any]] = [
    (None, oracle.euclidean),
    (Euclidean(), oracle.euclidean),
    (SquaredEuclidean(), lambda query, item: oracle.euclidean(query, item) ** 2),
    (Cosine(), oracle.cosine),
    (Manhattan(), lambda query, item: float(np.float32(oracle.manhattan(query, item)))),
]


def check(got: dict[str, float], expected: dict[str, float]) -> None:
    assert list(got) == list(expected)
    assert got == pytest.approx(expected, rel=2e-7, abs=1e-12)
    exact = {name: value for name, value in expected.items() if name != "best_threshold"}
    assert {name: got[name] for name in exact} == pytest.approx(exact, rel=1e-12, abs=1e-15)
    assert got["best_threshold"] >= expected["best_threshold"] * (1 - 1e-12)


@pytest.mark.parametrize(("distance", "measure"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_the_oracle(distance: Distance | None, measure: Any, seed: int) -> None:
    x, labels = cloud(seed=seed)
    pairs = judge(side(x, labels), measure)
    threshold = sorted(pairs.different)[30] * 1.001
    expected = verification_figures(pairs, FAR, threshold)
    assert all(0 < expected[name] < 1 for name in ("roc_auc", "eer", "tar_at_far_1e-1", "far_at_threshold"))
    check(verification_metrics(x, labels, distance=distance, far=FAR, threshold=threshold), expected)
    assert expected["roc_auc"] == pytest.approx(
        roc_auc_score([1] * len(pairs.same) + [0] * len(pairs.different), [-d for part in pairs for d in part])
    )


@pytest.mark.parametrize(("x", "labels"), [grid(), near_ties(), (grid()[0] * 0.0, grid()[1])])
def test_ties_and_near_ties_are_settled_exactly(x: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[int] = []
    inner = EuclideanPairs._exact

    def exact(self: EuclideanPairs, tile: Any, wanted: Tensor, which: Tensor) -> Tensor:
        settled.append(int(which.sum()))
        return inner(self, tile, wanted, which)

    monkeypatch.setattr(EuclideanPairs, "_exact", exact)
    pairs = judge(side(x, labels))
    check(verification_metrics(x, labels, far=FAR), verification_figures(pairs, FAR))
    assert sum(settled) > 0, "products alone would not do"


def test_a_constant_embedding_gains_nothing() -> None:
    _, labels = cloud()
    figures = verification_metrics(torch.ones(len(labels), 4), labels)
    assert figures["roc_auc"] == figures["eer"] == figures["balanced_accuracy"] == 0.5
    assert figures["tar_at_far_1e-2"] == 0


@pytest.mark.parametrize("distance", [None, Cosine(), Manhattan()])
def test_neither_blocks_nor_the_order_of_rows_show(distance: Distance | None) -> None:
    x, labels = cloud(rows=120, width=40)
    ids = torch.arange(120)
    expected = verification_metrics(x, labels, ids, distance=distance, threshold=1.5)
    for seed, blocks in enumerate((1, 7, 64)):
        order = torch.randperm(120, generator=torch.Generator().manual_seed(seed))
        with small_blocks(side=blocks):
            found = verification_metrics(x[order], labels[order], ids[order], distance=distance, threshold=1.5)
        assert found == expected


def test_counts_of_shards_add_up() -> None:
    x, labels = cloud()
    pairs = pairs_of(x, None)
    with small_blocks(side=16):
        whole = count_pairs(pairs, labels, pairs.inner(None))
        parts = [count_pairs(pairs, labels, pairs.inner(None), (rank, 3)) for rank in range(3)]
    assert all(0 < part.different < whole.different for part in parts)
    for name in ("closer", "within", "different"):
        total = sum(getattr(part, name) for part in parts)
        assert bool((torch.as_tensor(total) == torch.as_tensor(getattr(whole, name))).all())
    assert all(torch.equal(part.same, whole.same) for part in parts)
    assert isinstance(whole, PairCounts)


def test_the_curve_is_what_the_figures_are_of() -> None:
    x, labels = cloud()
    for distance, measure in CASES[1:4]:
        curve = roc_curve(x, labels, distance=distance)
        pairs = judge(side(x, labels), measure)
        assert curve.thresholds.tolist() == pytest.approx(sorted(set(pairs.same)), rel=1e-9)
        tar = [sum(d <= t * (1 + 1e-9) for d in pairs.same) / len(pairs.same) for t in curve.thresholds.tolist()]
        false = [
            sum(d <= t * (1 + 1e-9) for d in pairs.different) / len(pairs.different) for t in curve.thresholds.tolist()
        ]
        assert curve.tar.tolist() == pytest.approx(tar)
        assert curve.far.tolist() == pytest.approx(false)


def test_the_best_threshold_accepts_what_it_was_found_at() -> None:
    x, labels = cloud()
    for distance, _ in CASES:
        found = verification_metrics(x, labels, distance=distance)
        again = verification_metrics(x, labels, distance=distance, threshold=found["best_threshold"])
        assert again["balanced_accuracy_at_threshold"] == pytest.approx(found["balanced_accuracy"], rel=1e-12)
        below = math.nextafter(found["best_threshold"] * (1 - 1e-6), 0)
        lower = verification_metrics(x, labels, distance=distance, threshold=below)
        assert lower["tar_at_threshold"] < again["tar_at_threshold"]


def listed(x: Tensor, labels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Judged]:
    """Return 60 pairs of ids in 5 folds, and their distances."""
    generator = torch.Generator().manual_seed(0)
    same = [(i, j) for i in range(len(x)) for j in range(i) if labels[i] == labels[j]][:30]
    other = [
        (i, j) for i, j in torch.randint(0, len(x), (90, 2), generator=generator).tolist() if labels[i] != labels[j]
    ]
    rows = torch.tensor(same + other[:30])
    folds = torch.arange(60) % 5
    distances = [oracle.euclidean(*x.double().numpy()[row]) for row in rows.numpy()]
    return ids[rows], folds, Judged(distances[:30], distances[30:])


def fold_oracle(pairs: Judged, folds: Tensor) -> tuple[float, float]:
    answers = [(d, True) for d in pairs.same] + [(d, False) for d in pairs.different]
    found = []
    for fold in range(5):
        held = [answer for answer, f in zip(answers, folds.tolist(), strict=True) if f == fold]
        rest = [answer for answer, f in zip(answers, folds.tolist(), strict=True) if f != fold]
        candidates = [-1.0, *sorted(d for d, _ in rest)]
        best = max(candidates, key=lambda t: (sum((d <= t) == same for d, same in rest), -t))
        found.append(sum((d <= best) == same for d, same in held) / len(held))
    return float(np.mean(found)), float(np.std(found, ddof=1) / 5**0.5)


@pytest.mark.parametrize("distance", [None, SquaredEuclidean()])
def test_listed_pairs_and_their_folds(distance: Distance | None) -> None:
    x, labels = cloud(noise=0.7)
    ids = torch.arange(len(x)).flip(0) * 7
    pairs, folds, judged = listed(x, labels, ids)
    got = verification_metrics(x, labels, ids, pairs=pairs, folds=folds, far=FAR, distance=distance)
    mean, error = fold_oracle(judged, folds)
    assert 0.5 < mean < 1
    assert got.pop("accuracy_5_fold") == pytest.approx(mean)
    assert got.pop("accuracy_5_fold_standard_error") == pytest.approx(error)
    expected = verification_figures(judged, FAR)
    if distance is not None:
        expected["best_threshold"] **= 2
    check(got, expected)
    manhattan = verification_metrics(x, labels, ids, pairs=pairs, distance=Manhattan())
    assert manhattan["same_pairs"] == 30


def test_labels_and_ids_are_integers_to_the_end() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    labels = torch.tensor([2**53, 2**53 + 1, 2**53, -(2**60)])
    assert verification_metrics(x, labels)["same_pairs"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"far": (0.0,)}, r"far: expected different rates in \(0, 1\), got \[0.0\]"),
        (
            {"pairs": torch.zeros(3, 2)},
            r"pairs: expected an int64 tensor of shape \[P, 2\], got \(3, 2\) torch.float32",
        ),
        ({"pairs": torch.tensor([[0, 77]])}, r"pairs: expected ids of samples, got 77 \(1 unknown\)"),
        (
            {"pairs": torch.tensor([[0, 1], [0, 2]]), "folds": torch.zeros(3)},
            r"folds: expected a tensor of shape \[2\], got \(3,\)",
        ),
        ({"pairs": torch.tensor([[0, 1], [0, 2]]), "folds": torch.zeros(2)}, r"folds: expected at least 2, got 1"),
        ({"labels": torch.arange(3)}, "pairs of one class and pairs of two, got 0 of one and 3 of two"),
        ({"labels": torch.zeros(3).long()}, "pairs of one class and pairs of two, got 3 of one and 0 of two"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], message: str) -> None:
    given = {"embeddings": torch.tensor([[0.0], [1.0], [2.0]]), "labels": torch.tensor([0, 0, 1])}
    with pytest.raises(UserError, match=message):
        verification_metrics(**{**given, **arguments})
