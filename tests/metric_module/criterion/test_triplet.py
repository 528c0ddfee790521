"""Loss and gradient of the criterion, compared with three nested loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metric_module import TripletCriterion, UserError
from metric_module.distances import Distance, Euclidean, Manhattan, SquaredEuclidean
from metric_module.miners import All, BatchHard, DistanceWeighted, Easy, Semihard, Triplets
from tests.helpers.batches import DISTANCES, LABELS, MINERS, embed
from tests.helpers.blocks import small_blocks
from tests.helpers.nested_loops import compare
from tests.oracles.criterion import triplet_reference


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("loss", ["hinge", "soft"])
def test_equals_three_nested_loops(distance: type[Distance], miner: type, loss: str) -> None:
    active = []
    for number, (name, labels) in enumerate(LABELS.items()):
        reduction = ["mean_active", "mean", "sum"][number % 3]
        criterion = TripletCriterion(distance(), miner(), 0.7, loss, reduction)
        expected = compare(criterion, embed(len(labels), seed=number), labels)
        assert min(expected.easy, expected.semihard, expected.hard) > 0, f"{name}: the batch must be mixed"
        active.append(expected.active)
    assert max(active) > 0 or (miner is Easy and loss == "hinge")


@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("reduction", ["mean_active", "mean", "sum"])
@pytest.mark.parametrize("distance", [Euclidean, SquaredEuclidean, Manhattan])
def test_ties_and_duplicates(miner: type, reduction: str, distance: type[Distance]) -> None:
    generator = torch.Generator().manual_seed(3)
    # 16 rows of small integers: the mean is a dyadic number, so every distance is exact and ties are true ties.
    grid = torch.randint(0, 3, (16, 3), generator=generator).double()
    labels = torch.randint(0, 4, (16,), generator=generator).tolist()
    margin = 1.0
    distances = distance()(grid, grid)
    assert (distances[~torch.eye(16, dtype=torch.bool)] == 0).any(), "duplicates"
    if miner is BatchHard:
        # Which of several equally hard pairs is taken is free, so only the value is determined.
        output = TripletCriterion(distance(), miner(), margin, "hinge", reduction)(grid, torch.tensor(labels))
        expected = triplet_reference(grid, labels, distance.__name__, "BatchHard", margin, "hinge", reduction)
        torch.testing.assert_close(output.loss, expected.loss)
        assert expected.loss > 0
        return
    for loss in ("hinge", "soft"):
        compare(TripletCriterion(distance(), miner(), margin, loss, reduction), grid, labels)


@pytest.mark.parametrize("miner", [*MINERS, DistanceWeighted])
@pytest.mark.parametrize("loss", ["hinge", "soft"])
def test_block_size_changes_nothing(miner: type, loss: str) -> None:
    embeddings = torch.nn.functional.normalize(embed(24, seed=5), dim=1)
    labels = torch.arange(24) % 7
    results = []
    for budget in (1, 24 * 8 * 8 * 5, 2**26):
        leaf = embeddings.clone().requires_grad_()
        with small_blocks(memory_budget=budget):
            output = TripletCriterion(Euclidean(), miner(), 0.3, loss)(leaf, labels)
            torch.autograd.backward(output.loss)
        results.append((output.loss.detach(), leaf.grad, output.census))
    for loss_value, gradient, census in results[1:]:
        torch.testing.assert_close(loss_value, results[0][0], rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-10, atol=1e-14)
        assert census[:7] == results[0][2][:7]
    assert results[0][2].selected > 0


@pytest.mark.parametrize("miner", MINERS)
def test_reference_set_and_equal_ids(miner: type) -> None:
    query, reference = embed(6, seed=1), embed(11, seed=2)
    labels, reference_labels = [0, 0, 1, 2, 1, 5], [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 5]
    ids, reference_ids = torch.tensor([10, 11, 12, 13, 14, 15]), torch.tensor([10, 2, 13, 3, 4, 5, 11, 14, 6, 7, 15])
    ours = [query.clone().requires_grad_(), reference.clone().requires_grad_()]
    theirs = [query.clone().requires_grad_(), reference.clone().requires_grad_()]
    criterion = TripletCriterion(Euclidean(), miner(), 0.9, "soft")
    output = criterion(
        ours[0],
        torch.tensor(labels),
        ours[1],
        torch.tensor(reference_labels),
        ids=ids,
        reference_ids=reference_ids,
    )
    expected = triplet_reference(
        theirs[0],
        labels,
        "Euclidean",
        miner.__name__,
        0.9,
        "soft",
        "mean_active",
        theirs[1],
        reference_labels,
        same=lambda a, m: bool(ids[a] == reference_ids[m]),
    )
    assert expected.active > 0
    torch.autograd.backward(output.loss)
    torch.autograd.backward(expected.loss)
    torch.testing.assert_close(output.loss, expected.loss, rtol=1e-10, atol=0)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-12)


def test_masks_replace_labels() -> None:
    embeddings, labels = embed(8), torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])
    same = labels[:, None] == labels
    eye = torch.eye(8, dtype=torch.bool)
    criterion = TripletCriterion(Euclidean(), All(), 0.5)
    by_labels = criterion(embeddings, labels)
    by_masks = criterion(embeddings, None, positives=same & ~eye, negatives=~same)
    torch.testing.assert_close(by_labels.loss, by_masks.loss, rtol=1e-14, atol=0)
    ignored = ~same & (labels != 2)[None] & (labels != 2)[:, None]
    fewer = criterion(embeddings, labels, negatives=ignored)
    assert 0 < fewer.census.selected < by_labels.census.selected
    assert fewer.census.lone_anchors == 2


def test_sampled_triplets_are_summed_exactly() -> None:
    class Recording(DistanceWeighted):
        def select(self, *arguments: object) -> Triplets:
            found = super().select(*arguments)  # type: ignore[arg-type]
            self.named = set(zip(*(part.tolist() for part in found), strict=True))
            return found

    embeddings = torch.nn.functional.normalize(embed(12, seed=9), dim=1)
    labels = LABELS["uneven"]
    miner = Recording()
    ours, theirs = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    output = TripletCriterion(Euclidean(), miner, 0.05)(ours, torch.tensor(labels))
    expected = triplet_reference(
        theirs, labels, "Euclidean", "DistanceWeighted", 0.05, "hinge", "mean_active", named=miner.named
    )
    assert len(expected.selected) == len(miner.named) == output.census.selected > 20
    assert 0 < expected.active < len(miner.named)
    torch.autograd.backward(output.loss)
    torch.autograd.backward(expected.loss)
    torch.testing.assert_close(output.loss, expected.loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_learnable_distance_gets_its_gradient() -> None:
    class Weighted(Distance):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor([1.0, 0.5, 2.0, 0.1], dtype=torch.float64))

        def forward(self, query: Tensor, reference: Tensor) -> Tensor:
            result: Tensor = Euclidean()(query * self.scale, reference * self.scale)
            return result

    labels = torch.tensor(LABELS["uneven"])
    embeddings = embed(12).requires_grad_()
    distance = Weighted()
    criterion = TripletCriterion(distance, All(), 0.5, "soft")

    def run(values: Tensor, scale: Tensor) -> Tensor:
        distance.scale.data = scale.detach()
        loss: Tensor = criterion(values, labels).loss
        return loss

    loss = run(embeddings, distance.scale)
    torch.autograd.backward(loss)
    numeric = torch.zeros(4, dtype=torch.float64)
    start = distance.scale.detach().clone()
    for k in range(4):
        step = torch.zeros(4, dtype=torch.float64)
        step[k] = 1e-6
        numeric[k] = (run(embeddings, start + step) - run(embeddings, start - step)).detach() / 2e-6
    assert numeric.abs().min() > 0
    torch.testing.assert_close(distance.scale.grad, numeric, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("miner", [All, Semihard, BatchHard])
@pytest.mark.parametrize("loss", ["hinge", "soft"])
def test_gradcheck(miner: type, loss: str) -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 2])
    criterion = TripletCriterion(Euclidean(), miner(), 0.3, loss, census=False).eval()
    assert torch.autograd.gradcheck(
        lambda values: criterion(values, labels).loss, (embed(7, seed=4).requires_grad_(),), eps=1e-7, atol=1e-5
    )


@pytest.mark.parametrize("miner", [All, Semihard, BatchHard])
@pytest.mark.parametrize("margin", [0.001, 0.05, 0.4])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_float32_is_close_to_float64(miner: type, margin: float, offset: float) -> None:
    labels = torch.arange(256) % 64
    values = torch.nn.functional.normalize(embed(256, seed=11, columns=32), dim=1) + offset
    values = values.float()
    distances = Euclidean()(values.double(), values.double())
    positive = (labels[:, None] == labels) & ~torch.eye(256, dtype=torch.bool)
    edges = torch.cat([distances[positive].view(256, 3), distances[positive].view(256, 3) + margin], dim=1)
    gap = (distances[:, None] - edges[..., None]).abs().amin(dim=1) + positive + torch.eye(256)  # (A, M)
    # Selection is discontinuous at the edges: leave out what lies within 1e-6 of one, on both sides alike.
    negatives = (labels[:, None] != labels) & (gap > 1e-6 * (1 + offset))
    results = []
    for dtype in (torch.float32, torch.float64):
        leaf = values.detach().clone().to(dtype).requires_grad_()
        output = TripletCriterion(Euclidean(), miner(), margin)(leaf, labels, negatives=negatives)
        torch.autograd.backward(output.loss)
        assert leaf.grad is not None
        results.append((output.loss.double().detach(), leaf.grad.double(), output.census))
    assert 0 < results[0][2].active == results[1][2].active
    # Excesses below a thousandth carry the rounding of distances near 1: hence the absolute 1e-7.
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5 * (1 + offset), atol=1e-7)
    assert (results[0][1] - results[1][1]).norm() / results[1][1].norm() < 1e-5 * (1 + offset)


def test_a_subclass_that_training_would_not_call() -> None:
    with pytest.raises(UserError, match=r"Mine: override mine\(given, census\); training calls it in place of forward"):
        type("Mine", (TripletCriterion,), {"forward": lambda self, embeddings, labels: None})
