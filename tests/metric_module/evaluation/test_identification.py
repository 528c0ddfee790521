"""Compare open-set identification with an oracle that takes probe by probe, and check the roles of the samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metric_module import UserError
from metric_module.distances import SNR, Cosine, Distance, DotProduct, Manhattan, SquaredEuclidean
from metric_module.evaluation import identification_metrics, retrieval_metrics
from metric_module.evaluation.identification import assign_roles
from metric_module.keyed_random import combine, keyed_uniform
from tests.helpers.blocks import small_blocks
from tests.helpers.points import cloud, grid, near_ties, side
from tests.oracles import retrieval as oracle
from tests.oracles.identification import Answers, answers, identification_figures

FAR = (0.3, 0.1, 0.01)


def rounded(measure: oracle.Measure) -> oracle.Measure:
    """Round a distance without a Euclidean form to float32, so that equal pairs tie."""
    return lambda query, item: float(np.float32(measure(query, item)))


CASES: list[tuple[Distance | None, oracle.Measure]] = [
    (None, oracle.euclidean),
    (SquaredEuclidean(), lambda query, item: oracle.euclidean(query, item) ** 2),
    (Cosine(), oracle.cosine),
    (Manhattan(), rounded(oracle.manhattan)),
    (DotProduct(), rounded(oracle.dot_product)),
    (SNR(), rounded(oracle.snr)),
]


def enrolled_classes(labels: Tensor, seed: int) -> set[int]:
    """Order the classes by a number that is drawn for each, and take the first half."""
    classes = sorted(set(labels.tolist()), key=lambda label: float(keyed_uniform(combine(seed, label).reshape(1), 1)))
    return set(classes[: len(classes) // 2])


def asked(
    x: Tensor, labels: Tensor, ids: Tensor, enrolled: int, seed: int, measure: oracle.Measure = oracle.euclidean
) -> Answers:
    return answers(side(x, labels, ids), enrolled_classes(labels, seed), enrolled, measure)


def shuffled(x: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return samples whose ids are in another order than their rows."""
    return x, labels, torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)) * 7 - 100


@pytest.mark.parametrize(("distance", "measure"), CASES)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("enrolled", [1, 3])
def test_figures_are_those_of_the_oracle(
    distance: Distance | None, measure: oracle.Measure, seed: int, enrolled: int
) -> None:
    x, labels, ids = shuffled(*cloud(seed=seed, rows=110, classes=16, noise=0.8), seed)
    given = asked(x, labels, ids, enrolled, seed, measure)
    expected = identification_figures(given, FAR)
    limit = sorted(one.distance for one in given.unknown)[len(given.unknown) // 10]
    kinds = {(one.right, one.distance <= limit) for one in given.known}
    assert {(True, True), (True, False)} < kinds, "some are accepted, some rejected, and some misidentified"
    assert 0 < expected["dir_at_far_3e-1"] < expected["identification_rate"] < 1
    assert "dir_at_far_1e-2" not in expected
    found = identification_metrics(x, labels, ids, distance=distance, enrolled=enrolled, far=FAR, seed=seed)
    assert list(found) == list(expected)
    assert found == expected


@pytest.mark.parametrize("samples", [grid(), grid(seed=1), near_ties(), (grid()[0] * 0.0, grid()[1])])
@pytest.mark.parametrize("enrolled", [1, 2])
def test_ties_are_misses_in_blocks_of_any_size(samples: tuple[Tensor, Tensor], enrolled: int) -> None:
    x, labels, ids = shuffled(*samples, seed=3)
    given = asked(x, labels, ids, enrolled, 0)
    expected = identification_figures(given, FAR)
    for queries, tile in ((1, 1), (7, 3), (128, 2048)):
        with small_blocks(queries=queries, tile=tile):
            assert identification_metrics(x, labels, ids, enrolled=enrolled, far=FAR) == expected
    if not x.any():
        assert expected["identification_rate"] == expected["dir_at_far_3e-1"] == 0, "a constant names nobody"
    else:
        assert 0 < expected["dir_at_far_3e-1"] < expected["identification_rate"] < 1


def test_the_grid_has_ties_that_decide() -> None:
    """Among accepted and unknown probes, and between the own class and another."""
    x, labels, ids = shuffled(*grid(), seed=3)
    given = asked(x, labels, ids, 1, 0)
    known, unknown = ([one.distance for one in part] for part in given[:2])
    assert set(known) & set(unknown) and len(set(unknown)) < len(unknown)
    gallery = assign_roles(labels, ids, 1, 0).gallery
    probe = ~torch.isin(torch.arange(len(x)), gallery)
    distances = torch.cdist(x[probe].double(), x[gallery].double())
    own = labels[probe, None] == labels[gallery]
    nearest = [distances.masked_fill(mask, torch.inf).amin(dim=1) for mask in (own, ~own)]
    assert int(((nearest[0] == nearest[1]) & own.any(dim=1)).sum()) > 0


def test_the_closed_set_is_retrieval_at_rank_1() -> None:
    x, labels = cloud(rows=200, classes=20)
    roles = assign_roles(labels, None, 2, 0)
    query, gallery = ((x[rows], labels[rows]) for rows in (roles.known, roles.gallery))
    found = retrieval_metrics(*query, recall_at=(1,), gallery=gallery[0], gallery_labels=gallery[1])
    expected = found["recall_at_1"]
    assert 0 < expected < 1
    assert identification_metrics(x, labels, enrolled=2)["identification_rate"] == expected


def test_roles_are_disjoint_and_follow_classes_and_ids() -> None:
    _, labels, ids = shuffled(*cloud(rows=150, classes=21), seed=1)
    roles = assign_roles(labels, ids, 2, 4)
    assert sorted(torch.cat(roles).tolist()) == list(range(150))
    enrolled = enrolled_classes(labels, 4)
    assert len(enrolled) == len(set(labels.tolist())) // 2
    assert set(labels[roles.gallery].tolist()) == enrolled >= set(labels[roles.known].tolist())
    assert not set(labels[roles.unknown].tolist()) & enrolled
    for label in enrolled:
        first = sorted(ids[labels == label].tolist())[:2]
        assert sorted(ids[roles.gallery[labels[roles.gallery] == label]].tolist()) == first
    assert set(labels[assign_roles(labels, ids, 2, 5).gallery].tolist()) != enrolled, "another seed, other halves"


def test_neither_the_order_of_rows_nor_what_is_done_before_shows() -> None:
    x, labels, ids = shuffled(*cloud(rows=120, classes=14, noise=0.7), seed=2)
    found = identification_metrics(x, labels, ids, far=FAR)
    assert 0 < found["dir_at_far_1e-1"] < 1
    for seed in range(5):
        torch.manual_seed(seed)
        order = torch.randperm(120)
        assert identification_metrics(x[order], labels[order], ids[order], far=FAR) == found
    assert identification_metrics(x, labels, ids, far=FAR, seed=1) != found
    in_order = ids.argsort()
    assert identification_metrics(x[in_order], labels[in_order], far=FAR) == found, "without ids: the rows"


def test_a_rate_is_measured_from_as_many_unknown_probes_as_it_needs() -> None:
    labels = torch.arange(40) // 10  # 20 unknown probes
    x = labels[:, None] * 10.0 + torch.arange(40)[:, None] % 10
    assert identification_metrics(x, labels)["unknown_probes"] == 20
    assert "dir_at_far_5e-2" in identification_metrics(x, labels, far=(0.05,))
    assert "dir_at_far_4.9e-2" not in identification_metrics(x, labels, far=(0.049,))
    assert list(identification_metrics(x, labels, far=())) == [
        "identification_rate",
        "known_probes",
        "unknown_probes",
        "enrolled",
    ]


@pytest.mark.parametrize(
    ("labels", "arguments", "message"),
    [
        ([0, 0, 1, 1, 2, 2, 3, 3], {"enrolled": 0}, "enrolled: expected an integer >= 1, got 0"),
        ([0, 0, 1, 1, 2, 2, 3, 3], {"enrolled": 1.5}, "enrolled: expected an integer >= 1, got 1.5"),
        ([0, 0, 1, 1, 2, 2, 3, 3], {"far": (1.0,)}, r"far: expected different rates in \(0, 1\), got \[1.0\]"),
        (
            [0, 0, 0, 1, 1, 1, 2, 2],
            {},
            r"identification: expected at least 4 classes, 2 to enrol and 2 of unknown samples, got 3 "
            r"\(datamodule: labels, split\)",
        ),
        (
            [0, 0, 1, 1, 2, 2, 3, 3],
            {"enrolled": 2},
            r"identification: none of 2 enrolled classes has more than the 2 enrolled samples "
            r"\(evaluation.identification: lower enrolled or change seed; datamodule: labels, split\)",
        ),
    ],
)
def test_mistakes_are_named(labels: list[int], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        identification_metrics(torch.randn(8, 2), torch.tensor(labels), **arguments)
