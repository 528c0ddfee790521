"""Mining by tiles that serve both sides, compared with three nested loops and with mining by rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

from metric_module import TripletCriterion, UserError
from metric_module.criterion.sources import Sources
from metric_module.criterion.tiles import TileWalk, _groups
from metric_module.criterion.totals import Totals
from metric_module.distances import SNR, Distance, Euclidean, Manhattan, SquaredEuclidean
from metric_module.miners import All, BatchHard, Easy, Hard, Semihard, WindowMiner
from tests.helpers.batches import DISTANCES, LABELS, WINDOWS, embed
from tests.helpers.blocks import small_blocks
from tests.helpers.nested_loops import compare


class Narrow(WindowMiner):
    """A window that is not made up of categories, and may be empty."""

    def window(self, d_ap: Tensor, margin: float) -> tuple[Tensor, float]:
        return d_ap - margin / 2, 1.5


@contextmanager
def sides_of(rows: int) -> Iterator[list[int]]:
    """Let tiles in float64 have at most this many rows; gives the number of groups of every walk."""
    walks: list[int] = []
    run = TileWalk.__call__

    def count(self: TileWalk, sources: Sources) -> Totals:
        """Mine, and keep the number of groups."""
        walks.append(len(self.spans))
        return run(self, sources)

    with small_blocks(memory_budget=2 * rows * rows * 8 * 8), pytest.MonkeyPatch.context() as patch:
        patch.setattr(TileWalk, "__call__", count)
        yield walks


@pytest.mark.parametrize("distance", [kind for kind in DISTANCES if kind is not SNR])
@pytest.mark.parametrize("miner", WINDOWS)
@pytest.mark.parametrize("loss", ["hinge", "soft"])
def test_equals_three_nested_loops(distance: type[Distance], miner: type, loss: str) -> None:
    with sides_of(6) as walks:
        for number, labels in enumerate(LABELS.values()):
            reduction = ["mean_active", "mean", "sum"][number % 3]
            compare(
                TripletCriterion(distance(), miner(), 0.7, loss, reduction), embed(len(labels), seed=number), labels
            )
    assert len(walks) == len(LABELS) and min(walks) >= 2


@pytest.mark.parametrize("miner", WINDOWS)
@pytest.mark.parametrize("distance", [Euclidean, SquaredEuclidean, Manhattan])
def test_ties_and_duplicates(miner: type, distance: type[Distance]) -> None:
    # Groups of 4 rows of small integers, whose mean is a dyadic number, so that every distance is exact.
    grid = torch.randint(0, 3, (16, 3), generator=torch.Generator().manual_seed(3)).double()
    with sides_of(4) as walks:
        for loss in ("hinge", "soft"):
            compare(TripletCriterion(distance(), miner(), 1.0, loss), grid, [0, 1, 2, 3] * 4)
    assert walks == [4, 4]


@pytest.mark.parametrize("miner", [All, Semihard, Narrow])
@pytest.mark.parametrize("loss", ["hinge", "soft"])
@pytest.mark.parametrize("census", [False, True])
def test_equals_mining_by_rows(miner: type, loss: str, census: bool) -> None:
    labels = torch.repeat_interleave(torch.arange(9), torch.tensor([1, 1, 2, 3, 4, 4, 7, 9, 12]))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    results = []
    for rows in (100, 12):
        leaf = embed(len(labels), seed=4).requires_grad_()
        with sides_of(rows) as walks:
            criterion = TripletCriterion(Euclidean(), miner(), 0.6, loss, "mean", census=census)
            output = criterion(leaf, labels[order])
            torch.autograd.backward(output.loss)
        results.append((output, leaf.grad, walks))
    (by_rows, expected, none), (by_tiles, gradient, walks) = results
    assert none == [] and walks[0] >= 4
    torch.testing.assert_close(by_tiles.loss, by_rows.loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-14)
    assert by_tiles.census[:7] == by_rows.census[:7] and by_tiles.census.selected > 50
    if census:
        torch.testing.assert_close(by_tiles.census.mean_d_ap, by_rows.census.mean_d_ap)
        torch.testing.assert_close(by_tiles.census.mean_d_an, by_rows.census.mean_d_an)


def test_tiles_are_used_only_where_they_serve_both_sides() -> None:
    embeddings, labels = embed(12), torch.arange(12) // 3
    criterion = TripletCriterion(Euclidean(), Hard())
    with sides_of(6) as walks:
        TripletCriterion(SNR(), Hard())(embeddings, labels)  # not symmetric
        TripletCriterion(Euclidean(), BatchHard())(embeddings, labels)  # names single triplets
        criterion(embeddings, labels, embeddings, labels)  # other references
        criterion(embeddings, labels, ids=torch.arange(12))  # more than classes decides
        criterion(embeddings, torch.arange(12) // 8)  # a class larger than a tile
        criterion(embeddings[:6], labels[:6])  # a single tile
        assert walks == []
        criterion(embeddings, labels)
        assert walks == [2]


@pytest.mark.parametrize("sizes", [[3] * 7, [5, 4, 1, 1, 1], [6, 6], [1] * 13, [2]])
def test_groups_are_whole_classes(sizes: list[int]) -> None:
    of_anchor = np.repeat(sizes, sizes)
    groups = list(_groups(of_anchor, 6))
    assert [group.start for group in groups] == [0, *(group.stop for group in groups[:-1])]
    assert groups[-1].stop == len(of_anchor) and all(0 < group.stop - group.start <= 6 for group in groups)
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    assert all(group.stop in ends for group in groups)


def test_a_distance_out_of_reach_is_found_in_any_tile() -> None:
    embeddings = embed(12).float()
    embeddings[11] = 1e38
    with sides_of(6) as walks, pytest.raises(UserError, match="Euclidean: distances are NaN, or too"):
        TripletCriterion(Euclidean(), Easy())(embeddings, torch.arange(12) // 3)
    assert walks
