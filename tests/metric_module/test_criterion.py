"""The criterion against three nested loops, and its invariants."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metric_module import TripletCriterion, UserError, blockwise
from metric_module.distances import Cosine, Distance, DotProduct, Euclidean, Manhattan, SquaredEuclidean
from metric_module.miners import All, BatchHard, DistanceWeighted, Easy, Hard, Miner, SelectingMiner, Semihard, Triplets
from tests.oracles.criterion import Reference, triplet_reference

DISTANCES: list[type[Distance]] = [Euclidean, SquaredEuclidean, Cosine, Manhattan, DotProduct]
WINDOWS: list[type] = [All, Easy, Semihard, Hard]
MINERS = [*WINDOWS, BatchHard]

LABELS = {
    "uneven": [0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3],
    "lone": [0, 0, 1, 1, 1, 2, 3, 4, 4, 5, 6, 6],
    "shuffled": [2, 0, 1, 2, 0, 1, 1, 0, 2, 2, 7, 0],
    "negative and huge": [-5, 2**53, 2**53 + 1, -5, 2**53, 2**53 + 1, -5, 0, 0, 2**53 + 1, 0, -5],
}


def embed(rows: int, seed: int = 0, columns: int = 4) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def compare(criterion: TripletCriterion, embeddings: Tensor, labels: list[int]) -> Reference:
    """Loss, gradient and counts against the oracle; 1e-10 relative."""
    ours, theirs = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    output = criterion(ours, torch.tensor(labels))
    expected = triplet_reference(
        theirs,
        labels,
        type(criterion.distance).__name__,
        type(criterion.miner).__name__,
        criterion.margin,
        criterion.loss,
        criterion.reduction,
    )
    torch.testing.assert_close(output.loss, expected.loss, rtol=1e-10, atol=1e-12)
    output.loss.backward()
    expected.loss.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-11)
    census = output.census
    assert (census.easy, census.semihard, census.hard) == (expected.easy, expected.semihard, expected.hard)
    assert (census.selected, census.active) == (len(expected.selected), expected.active)
    assert (census.lone_anchors, census.anchors) == (expected.lone, len(labels) - expected.lone)
    return expected


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
def test_block_size_changes_nothing(miner: type, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = torch.nn.functional.normalize(embed(24, seed=5), dim=1)
    labels = torch.arange(24) % 7
    results = []
    for budget in (1, 24 * 8 * 8 * 5, 2**26):
        monkeypatch.setattr(blockwise, "MEMORY_BUDGET", budget)
        leaf = embeddings.clone().requires_grad_()
        output = TripletCriterion(Euclidean(), miner(), 0.3, loss)(leaf, labels)
        output.loss.backward()
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
    output.loss.backward()
    expected.loss.backward()
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
    torch.testing.assert_close(by_labels.loss, by_masks.loss, rtol=0, atol=0)
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
    output.loss.backward()
    expected.loss.backward()
    torch.testing.assert_close(output.loss, expected.loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_learnable_distance_gets_its_gradient() -> None:
    class Weighted(Distance):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor([1.0, 0.5, 2.0, 0.1], dtype=torch.float64))

        def forward(self, query: Tensor, reference: Tensor) -> Tensor:
            return Euclidean()(query * self.scale, reference * self.scale)

    labels = torch.tensor(LABELS["uneven"])
    embeddings = embed(12).requires_grad_()
    criterion = TripletCriterion(Weighted(), All(), 0.5, "soft")

    def run(values: Tensor, scale: Tensor) -> Tensor:
        criterion.distance.scale.data = scale.detach()
        loss: Tensor = criterion(values, labels).loss
        return loss

    loss = run(embeddings, criterion.distance.scale)
    loss.backward()
    numeric = torch.zeros(4, dtype=torch.float64)
    start = criterion.distance.scale.detach().clone()
    for k in range(4):
        step = torch.zeros(4, dtype=torch.float64)
        step[k] = 1e-6
        numeric[k] = (run(embeddings, start + step) - run(embeddings, start - step)).detach() / 2e-6
    assert numeric.abs().min() > 0
    torch.testing.assert_close(criterion.distance.scale.grad, numeric, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("miner", [All, Semihard, BatchHard])
@pytest.mark.parametrize("loss", ["hinge", "soft"])
def test_gradcheck(miner: type, loss: str) -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 2])
    criterion = TripletCriterion(Euclidean(), miner(), 0.3, loss, census=False).eval()
    assert torch.autograd.gradcheck(
        lambda values: criterion(values, labels).loss, (embed(7, seed=4).requires_grad_(),), eps=1e-7, atol=1e-5
    )


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
    assert none.census[3:7] == full.census[3:7]
    again = TripletCriterion(Euclidean(), Semihard(), 0.5, census=False)(embeddings, labels, census=True)
    assert again.census[:7] == full.census[:7]


def test_census_means_are_over_pairs_of_used_anchors() -> None:
    embeddings = torch.tensor([[0.0], [1.0], [5.0], [7.0], [100.0]])
    census = TripletCriterion(Euclidean(), All(), 0.5)(embeddings, torch.tensor([0, 0, 1, 1, 2])).census
    assert census.mean_d_ap is not None and census.mean_d_an is not None
    assert census.mean_d_ap.item() == pytest.approx(1.5)
    between = [abs(a - b) for a in (0, 1) for b in (5, 7)] * 2 + [100, 99, 95, 93]
    assert census.mean_d_an.item() == pytest.approx(sum(between) / len(between))


GOOD, CLASSES = torch.eye(3), torch.tensor([0, 0, 1])
NAN = torch.tensor([[0.0, 1.0], [math.nan, 0.0], [1.0, 1.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (NAN, CLASSES),
            r"embeddings: expected finite numbers, got NaN or infinity in 1 of 3 rows \(first rows: \[1\]\)",
        ),
        ((torch.zeros(3), CLASSES), r"embeddings: expected a tensor of shape \[N, D\], got \(3,\)"),
        (
            (torch.zeros(3, 2, dtype=torch.int64), CLASSES),
            r"embeddings: expected floating point numbers, got torch.int64",
        ),
        (
            (GOOD, torch.tensor([0, 1])),
            r"labels: expected a tensor of shape \[3\], one integer per embedding, got \(2,\)",
        ),
        ((GOOD, torch.tensor([[0, 1, 1]])), r"labels: expected a tensor of shape \[3\].* got \(1, 3\)"),
        ((GOOD, torch.tensor([0.0, 1.0, 1.0])), r"labels: expected integers, got torch.float32"),
        ((GOOD, [0, 0, 1]), r"labels: expected a tensor of shape \[3\].* got list"),
        ((GOOD, None), r"labels: expected integers of shape \[B\], or a mask in positives, got neither"),
        ((GOOD, CLASSES, torch.eye(2), CLASSES[:2]), r"reference: expected a tensor of shape \[N, 3\], got \(2, 2\)"),
        ((GOOD, CLASSES, GOOD), r"reference_labels: expected integers of shape \[M\] beside reference, got None"),
        ((GOOD, CLASSES, None, CLASSES), r"reference_labels and reference_ids go with reference"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        TripletCriterion(Euclidean(), All())(*arguments)
    assert "\n" not in str(caught.value)


def test_bad_ids_and_masks() -> None:
    criterion = TripletCriterion(Euclidean(), All())
    with pytest.raises(UserError, match="ids and reference_ids: expected both or neither, got one"):
        criterion(GOOD, CLASSES, GOOD, CLASSES, ids=CLASSES)
    with pytest.raises(
        UserError, match=r"positives: expected a bool mask of shape \[3, 3\], got torch.float32 \(3, 3\)"
    ):
        criterion(GOOD, CLASSES, positives=torch.eye(3))
    with pytest.raises(UserError, match=r"negatives: expected a bool mask of shape \[3, 3\], got torch.bool \(2, 3\)"):
        criterion(GOOD, CLASSES, negatives=torch.ones(2, 3, dtype=torch.bool))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"margin": 0.0}, "margin: expected a number > 0 for the hinge loss, got 0.0"),
        ({"margin": -1}, "margin: expected a number > 0 for the hinge loss, got -1"),
        ({"margin": -0.1, "loss": "soft"}, "margin: expected a number >= 0 for the soft loss, got -0.1"),
        ({"margin": math.nan}, "margin: expected a finite number, got nan"),
        ({"margin": "0.2"}, "margin: expected a finite number, got '0.2'"),
        ({"loss": "huber"}, "loss: expected one of hinge, soft, got 'huber'"),
        ({"reduction": "median"}, "reduction: expected one of mean_active, mean, sum, got 'median'"),
        ({"distance": All()}, "distance: expected a Distance, got All"),
        ({"miner": Euclidean()}, "miner: expected a WindowMiner or SelectingMiner, got Euclidean"),
    ],
)
def test_bad_settings_are_one_clear_line(arguments: dict[str, object], message: str) -> None:
    settings: dict[str, object] = {"distance": Euclidean(), "miner": All(), **arguments}
    with pytest.raises(UserError, match=message):
        TripletCriterion(**settings)  # type: ignore[arg-type]


def test_a_miner_that_names_a_wrong_triplet_is_refused() -> None:
    class Wrong(SelectingMiner):
        def select(self, distances: Tensor, *rest: object) -> Triplets:
            zero = torch.zeros(1, dtype=torch.int64)
            return Triplets(zero, zero, zero)

    miner: Miner = Wrong()
    with pytest.raises(UserError, match=r"Wrong\.select: named a triplet whose pairs are not in the masks"):
        TripletCriterion(Euclidean(), miner)(GOOD, CLASSES)
