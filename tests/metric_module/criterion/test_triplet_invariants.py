"""Invariants of the criterion for any batch: order, state, precision, empty cases."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metric_module import TripletCriterion
from metric_module.distances import Euclidean
from metric_module.functional import MATMUL
from metric_module.miners import All, BatchHard, DistanceWeighted, SelectingMiner, Semihard
from tests.helpers.batches import LABELS, MINERS, embed
from tests.helpers.precision import LOWERED, Lowered


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    rows=st.integers(2, 14),
    miner=st.sampled_from(MINERS),
    loss=st.sampled_from(["hinge", "soft"]),
)
def test_permutation_of_the_batch_changes_nothing(data: st.DataObject, rows: int, miner: type, loss: str) -> None:
    labels = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows)))
    order = torch.tensor(data.draw(st.permutations(range(rows))))
    embeddings = embed(rows, seed=data.draw(st.integers(0, 99)))
    criterion = TripletCriterion(Euclidean(), miner(), 0.5, loss)
    first, second = criterion(embeddings, labels), criterion(embeddings[order], labels[order])
    assert first.loss >= 0
    torch.testing.assert_close(first.loss, second.loss, rtol=1e-10, atol=1e-14)
    assert first.census[:7] == second.census[:7]
    triplets = sum(int(count) for count in first.census[:3] if count is not None)
    assert (first.census.anchors == 0) == (triplets == 0)
    assert first.census.anchors + first.census.lone_anchors == rows


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999),
    margin=st.floats(0.01, 2),
    miner=st.sampled_from([BatchHard, DistanceWeighted]),
)
def test_selected_triplets_are_valid(seed: int, margin: float, miner: type[SelectingMiner]) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.nn.functional.normalize(torch.randn(20, 5, generator=generator), dim=1)
    labels = torch.randint(0, 5, (20,), generator=generator)
    distances = Euclidean()(embeddings, embeddings)
    positive = (labels[:, None] == labels) & ~torch.eye(20, dtype=torch.bool)
    chooser = miner()
    chooser.check(Euclidean(), embeddings)
    numbers = torch.rand(20, 20, generator=generator)
    anchor, ap, an = chooser.select(distances, positive, labels[:, None] != labels, margin, lambda n: numbers[:, :n])
    assert len(anchor) > 0
    assert positive[anchor, ap].all()
    assert (labels[anchor] != labels[an]).all()


@pytest.mark.parametrize("miner", [All, Semihard, BatchHard, DistanceWeighted])
def test_no_triplet_is_a_connected_zero(miner: type) -> None:
    for labels in ([0, 0, 0], [0, 1, 2]):
        embeddings = torch.eye(3).requires_grad_()
        output = TripletCriterion(Euclidean(), miner())(embeddings, torch.tensor(labels))
        output.loss.backward()
        assert output.loss == 0
        assert embeddings.grad is not None
        assert (embeddings.grad == 0).all()
        assert output.census.lone_anchors == 3
    empty = torch.zeros(0, 3, requires_grad=True)
    output = TripletCriterion(Euclidean(), miner())(empty, torch.zeros(0, dtype=torch.int64))
    assert output.loss == 0


def test_float16_is_computed_in_float32() -> None:
    labels = torch.tensor(LABELS["uneven"])
    values = embed(12).half()
    exact = TripletCriterion(Euclidean(), All(), 0.5)(values.double(), labels).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = TripletCriterion(Euclidean(), All(), 0.5)(values.requires_grad_(), labels).loss
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=1e-5)
    half.backward()
    assert values.grad is not None and values.grad.dtype == torch.float16 and values.grad.isfinite().all()


class Recording(Euclidean):
    """A distance that records the precision of products during the call."""

    seen: tuple[str, ...] = ()

    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        self.seen = tuple(backend.fp32_precision for backend in MATMUL)
        return super().forward(query, reference)


@pytest.mark.parametrize("lowered", LOWERED)
def test_lower_precision_modes_do_not_reach_the_products(lowered: Lowered) -> None:
    # Whether a product of float32 really loses digits depends on the processor: what it is allowed to does not.
    labels = torch.arange(64) % 8
    values = torch.nn.functional.normalize(embed(64, columns=64).float(), dim=1)
    exact = TripletCriterion(Euclidean(), All(), 0.2)(values.double(), labels).loss
    distance = Recording()
    with lowered():
        loss = TripletCriterion(distance, All(), 0.2)(values, labels).loss
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5) and exact > 0
    assert distance.seen == ("ieee", "ieee")


def test_softplus_never_overflows() -> None:
    embeddings = torch.tensor([[0.0], [1e4], [1.0], [-1e4]], requires_grad=True)
    output = TripletCriterion(Euclidean(), All(), 0.0, "soft")(embeddings, torch.tensor([0, 0, 1, 1]))
    output.loss.backward()
    assert output.loss.isfinite() and output.loss > 1e3
    assert embeddings.grad is not None and embeddings.grad.isfinite().all()


def test_random_choices_depend_on_seed_and_step_alone() -> None:
    embeddings = torch.nn.functional.normalize(embed(40, columns=16), dim=1)
    labels = torch.arange(40) % 4

    def losses(seed: int, count: int) -> list[float]:
        criterion = TripletCriterion(Euclidean(), DistanceWeighted(), 0.3, seed=seed)
        return [criterion(embeddings, labels).loss.item() for _ in range(count)]

    torch.manual_seed(1)
    first = losses(seed=0, count=3)
    torch.manual_seed(2)
    assert losses(seed=0, count=3) == first
    assert len(set(first)) == 3
    assert losses(seed=1, count=3) != first
    resumed = TripletCriterion(Euclidean(), DistanceWeighted(), 0.3)
    half = TripletCriterion(Euclidean(), DistanceWeighted(), 0.3)
    for _ in range(2):
        half(embeddings, labels)
    resumed.load_state_dict(half.state_dict())
    assert resumed(embeddings, labels).loss.item() == first[2]
    resumed.eval()
    step = resumed.step.item()
    resumed(embeddings, labels)
    assert resumed.step.item() == step, "evaluation does not move the random stream"


def test_census_can_be_left_out() -> None:
    embeddings, labels = embed(12), torch.tensor(LABELS["lone"])
    full = TripletCriterion(Euclidean(), Semihard(), 0.5)(embeddings, labels)
    none = TripletCriterion(Euclidean(), Semihard(), 0.5, census=False)(embeddings, labels)
    assert none.loss == full.loss
    assert none.census.easy is none.census.mean_d_ap is None
    assert none.census.selected is None
    assert none.census[4:7] == full.census[4:7]
    counted = TripletCriterion(Euclidean(), Semihard(), 0.5, reduction="mean", census=False)(embeddings, labels)
    assert counted.census.selected == full.census.selected, "the mean needs it"
    again = TripletCriterion(Euclidean(), Semihard(), 0.5, census=False)(embeddings, labels, census=True)
    assert again.census[:7] == full.census[:7]


def test_census_means_are_over_pairs_of_used_anchors() -> None:
    embeddings = torch.tensor([[0.0], [1.0], [5.0], [7.0], [100.0]])
    census = TripletCriterion(Euclidean(), All(), 0.5)(embeddings, torch.tensor([0, 0, 1, 1, 2])).census
    assert census.mean_d_ap is not None and census.mean_d_an is not None
    assert census.mean_d_ap.item() == pytest.approx(1.5)
    between = [abs(a - b) for a in (0, 1) for b in (5, 7)] * 2 + [100, 99, 95, 93]
    assert census.mean_d_an.item() == pytest.approx(sum(between) / len(between))
