"""Schedules of miners: the current miner, step and epoch in the state, and rejected schedules."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from metric_module import TripletCriterion, UserError
from metric_module.distances import Cosine, Euclidean
from metric_module.miners import (
    All,
    BatchHard,
    DistanceWeighted,
    Hard,
    Scheduled,
    SelectingMiner,
    Semihard,
    WindowMiner,
)
from tests.helpers.batches import embed
from tests.helpers.training import continued, hidden_state, loader, module, trainer

LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])


def three(every: Any = "step") -> Scheduled:
    return Scheduled({"a": All(), "b": BatchHard(), "c": Hard()}, starts=[0, 2, 5], every=every)


def test_each_call_uses_the_miner_in_force_and_training_calls_alone_count() -> None:
    embeddings = embed(10)
    miners = (All(), BatchHard(), Hard())
    expected = [TripletCriterion(Euclidean(), miner, margin=0.7)(embeddings, LABELS).loss for miner in miners]
    assert len({round(loss.item(), 6) for loss in expected}) == 3 and min(expected) > 0
    criterion = TripletCriterion(Euclidean(), three(), margin=0.7)
    for place in (0, 0, 1, 1, 1, 2, 2):
        for training in (False, True):
            loss = criterion.train(training)(embeddings, LABELS).loss
            assert torch.equal(loss, expected[place])
    assert criterion.step == criterion.miner.step == 7


@pytest.mark.parametrize(("every", "now"), [("step", "step"), ("epoch", "epoch")])
def test_the_other_clock_does_not_matter(every: str, now: str) -> None:
    miner = three(every)
    other = {"step": miner.epoch, "epoch": miner.step}[now]
    other.fill_(100)
    names = []
    for moment in (0, 1, 2, 4, 5, 10**9):
        getattr(miner, now).fill_(moment)
        names.append(type(miner.current).__name__)
    assert names == ["All", "All", "BatchHard", "BatchHard", "Hard", "Hard"]


def test_random_choices_and_census_go_on_through_a_switch() -> None:
    """A selecting miner that starts later draws the same numbers at a step as one that started at once."""
    embeddings = torch.nn.functional.normalize(embed(10, columns=5))
    alone = TripletCriterion(Euclidean(), DistanceWeighted(), margin=0.5, seed=3)
    switched = TripletCriterion(Euclidean(), Scheduled([All(), DistanceWeighted()], [0, 2]), margin=0.5, seed=3)
    for step in range(5):
        one, two = (criterion(embeddings, LABELS) for criterion in (alone, switched))
        assert torch.equal(one.loss, two.loss) == (step >= 2)
        assert one.census.hard == two.census.hard > 0


def test_the_module_tells_it_the_epoch(tmp_path: Path) -> None:
    model = module(miner=Scheduled([All(), Hard()], [0, 2], every="epoch"))
    used: list[type] = []
    inner = model.criterion.mine

    def spy(*arguments: Any, **options: Any) -> Any:
        miner = model.criterion.miner
        assert isinstance(miner, Scheduled)
        used.append(type(miner.current))
        return inner(*arguments, **options)

    model.criterion.mine = spy  # type: ignore[method-assign]
    trainer(tmp_path, max_epochs=3).fit(model, loader())
    assert used == [All] * 8 + [Hard] * 4


@pytest.mark.parametrize("every", ["step", "epoch"])
def test_training_continues_with_the_miner_it_stopped_at(tmp_path: Path, every: Any) -> None:
    def build(seed: int) -> Any:
        starts = [0, 3, 10] if every == "step" else [0, 1, 3]
        return module(miner=Scheduled([All(), Semihard(), Hard()], starts, every), seed=seed)

    whole, forgetful = continued(tmp_path, build, "criterion.miner.step")
    same = torch.equal(forgetful.encoder.head.linear.weight, whole.encoder.head.linear.weight)
    assert same == (every == "epoch"), "the step in the checkpoint made no difference: the test would prove nothing"


def test_nothing_changes_outside_the_state() -> None:
    criterion = TripletCriterion(Euclidean(), three())
    before = hidden_state(criterion)
    criterion(embed(10), LABELS)
    assert hidden_state(criterion) == before

    class Leaky(Scheduled):
        calls = 0

        @property
        def current(self) -> WindowMiner | SelectingMiner:
            self.calls += 1
            return super().current

    criterion = TripletCriterion(Euclidean(), Leaky([All()], [0]))
    before = hidden_state(criterion)
    criterion(embed(10), LABELS)
    assert hidden_state(criterion) != before


def test_a_miner_that_cannot_work_is_refused_before_its_turn() -> None:
    unit = torch.nn.functional.normalize(embed(10))
    criterion = TripletCriterion(Cosine(), Scheduled([All(), DistanceWeighted()], [0, 1000]))
    with pytest.raises(UserError, match=r"distance weighted: expected Euclidean distance, got Cosine"):
        criterion(unit, LABELS)
    assert TripletCriterion(Cosine(), All())(unit, LABELS).loss > 0


@pytest.mark.parametrize(
    ("miners", "starts", "every", "message"),
    [
        ([All(), Hard()], [0], "step", "scheduled: expected a start for each of 2 miners, got starts=[0]"),
        ([], [], "step", "scheduled: expected starts that begin with 0 and increase, got starts=[]"),
        ([All()], [1], "step", "scheduled: expected starts that begin with 0 and increase, got starts=[1]"),
        (
            [All(), Hard()],
            [0, 0],
            "step",
            "scheduled: expected starts that begin with 0 and increase, got starts=[0, 0]",
        ),
        ([All()] * 3, [0, 9, 5], "step", "expected starts that begin with 0 and increase, got starts=[0, 9, 5]"),
        ([All(), Hard()], [0, 1.5], "step", "expected starts that begin with 0 and increase, got starts=[0, 1.5]"),
        ([All(), Hard()], [0, math.inf], "step", "expected starts that begin with 0 and increase, got starts=[0, inf]"),
        ([All()], [False], "step", "expected starts that begin with 0 and increase, got starts=[False]"),
        ([All()], [0], "batch", "scheduled: expected every to be step or epoch, got 'batch'"),
        ([All(), Euclidean()], [0, 1], "step", "expected a WindowMiner or SelectingMiner as miner 1, got Euclidean"),
        ([three()], [0], "step", "as miner 0, got Scheduled; schedules do not nest: list its miners here"),
    ],
)
def test_what_makes_no_sense_is_refused(miners: Any, starts: Any, every: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Scheduled(miners, starts, every)
