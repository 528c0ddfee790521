"""Tests of rounds in which near classes meet: every class has its turn, for any number of processes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datamodules.sampling.neighbourhoods import LAG, Neighbourhoods, complete, grouped
from datamodules.sampling.pk_sampler import PKSampler
from metric_module.errors import UserError

CLASSES, EACH = 22, 5
N = "datamodule.neighbours"
LABELS = torch.arange(CLASSES * EACH) * 7 % CLASSES * 3  # labels 0, 3, 6, ... in mixed order


def random_table(classes: int, width: int, seed: int = 0) -> Tensor:
    points = torch.randn(classes, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cdist(points, points).fill_diagonal_(torch.inf).argsort(dim=1)[:, :width].int()


def neighbourhoods(tables: dict[int, Tensor], group: int = 3, share: float = 1.0) -> Neighbourhoods:
    found = Neighbourhoods(group, share)
    found.tables = tables
    return found


def classes_of(sampler: PKSampler, steps: Tensor) -> Tensor:
    """Class of each slot of some batches, as 0 to C - 1, int64 ``(T, P / W)``."""
    return LABELS[sampler.batches(steps)].view(len(steps), -1, sampler.samples_per_class)[:, :, 0] // 3


def by_the_book(keyed: list[int], near: list[list[int]], size: int, group: int, in_groups: int) -> list[int]:
    """Order a round batch by batch, from a list of the classes that are left."""
    left, batches = list(keyed), list[int]()
    while left:
        batch = list[int]()
        while left and len(batch) < size:
            members = [left[0]]
            while len(members) < group and len(batch) + len(members) < in_groups:
                free = [other for other in near[left[0]] if other in left and other not in members]
                if not free:
                    break
                members.append(free[0])
            batch += members
            left = [one for one in left if one not in members]
        batches += batch
    return batches


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_groups_are_those_of_the_definition(data: st.DataObject) -> None:
    classes = data.draw(st.integers(2, 30))
    size = data.draw(st.integers(2, classes))
    group, in_groups = data.draw(st.integers(2, size)), data.draw(st.integers(2, size))
    table = random_table(classes, data.draw(st.integers(1, classes - 1)), data.draw(st.integers(0, 99)))
    keyed = torch.tensor(data.draw(st.permutations(range(classes))))
    found = grouped(keyed, table, size, group, in_groups).tolist()
    assert found == by_the_book(keyed.tolist(), table.tolist(), size, group, in_groups)
    assert sorted(found) == list(range(classes))


@pytest.mark.parametrize(("p", "group", "share"), [(4, 2, 1.0), (8, 4, 0.5), (5, 5, 1.0), (11, 3, 0.7), (22, 2, 1.0)])
def test_every_round_is_a_partition(p: int, group: int, share: float) -> None:
    sampler = PKSampler(
        LABELS, p, 2, seed=3, neighbourhoods=neighbourhoods({0: random_table(CLASSES, 9)}, group, share)
    )
    rounds = classes_of(sampler, torch.arange(6 * sampler.batches_per_round)).view(6, -1)
    for order in rounds.tolist():
        assert sorted(order[:CLASSES]) == list(range(CLASSES))
    assert all(len(set(batch)) == p for batch in rounds.view(-1, p).tolist())
    assert len({tuple(order) for order in rounds.tolist()}) == 6


def test_share_of_a_batch_in_groups() -> None:
    """Half of the first batch is two groups of near classes; the rest are the next classes in keyed order."""
    table = random_table(CLASSES, 21)
    half = PKSampler(LABELS, 8, 2, neighbourhoods=neighbourhoods({0: table}, 2, 0.5))
    first = classes_of(half, torch.tensor([0]))[0].tolist()
    assert first[1] == int(table[first[0], 0])
    left = [one for one in classes_of(PKSampler(LABELS, 22, 2), torch.tensor([0]))[0].tolist() if one not in first[:4]]
    assert first[0] == int(classes_of(PKSampler(LABELS, 22, 2), torch.tensor([0]))[0, 0])
    assert first[4:] == left[:4]


def test_near_classes_meet_more_often_than_at_random() -> None:
    table = random_table(CLASSES, 8)
    near, plain = (PKSampler(LABELS, 4, 2, neighbourhoods=kind) for kind in (neighbourhoods({0: table}, 2), None))

    def met(sampler: PKSampler) -> int:
        batches = classes_of(sampler, torch.arange(600)).tolist()
        return sum(int(table[one, 0]) in batch for batch in batches for one in batch)

    assert met(near) > 2 * met(plain) > 0


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_draw_the_batches_of_one(world_size: int) -> None:
    tables = {0: random_table(CLASSES, 8), 12: random_table(CLASSES, 8, seed=1)}
    steps = torch.arange(40)
    whole = PKSampler(LABELS, 8, 3, seed=1, neighbourhoods=neighbourhoods(tables)).batches(steps)
    shards = [
        PKSampler(
            LABELS, 8, 3, seed=1, rank=rank, world_size=world_size, neighbourhoods=neighbourhoods(tables)
        ).batches(steps)
        for rank in range(world_size)
    ]
    assert torch.equal(torch.cat(shards, dim=1), whole)
    other = PKSampler(LABELS, 8, 3, seed=1, neighbourhoods=neighbourhoods({0: tables[0]})).batches(steps)
    assert torch.equal(other[:12], whole[:12]) and not torch.equal(other[12:], whole[12:])


def test_a_batch_depends_on_nothing_drawn_before() -> None:
    tables = {0: random_table(CLASSES, 8), 6: random_table(CLASSES, 8, seed=1)}
    steps = torch.arange(30)
    whole = PKSampler(LABELS, 4, 2, neighbourhoods=neighbourhoods(tables)).batches(steps)
    sampler = PKSampler(LABELS, 4, 2, neighbourhoods=neighbourhoods(tables))
    for step in (29, 3, 17, 5, 6, 0):
        assert torch.equal(sampler.batches(torch.tensor([step]))[0], whole[step])


def test_a_table_is_asked_for_when_its_round_begins() -> None:
    """The sampler may run ahead within a round, and a table that comes later does not change that round."""
    near = neighbourhoods({0: random_table(CLASSES, 8)})
    sampler = PKSampler(LABELS, 8, 2, neighbourhoods=near)  # rounds of 3 batches, epochs of 7
    stream = iter(sampler)
    drawn = [next(stream) for _ in range(3 * 16)]
    near.tables[3] = random_table(CLASSES, 8, seed=1)
    drawn += stream
    again = PKSampler(LABELS, 8, 2, neighbourhoods=neighbourhoods(near.tables))
    assert drawn == list(again)
    sampler.start_at(0, 4)
    assert list(sampler) == drawn[4 * 16 :]


def test_samples_for_centres() -> None:
    labels = torch.tensor([5, 5, 5, 9, 7, 7, 5, 7, 5])
    sampler = PKSampler(labels, 2, 3)
    places, classes = sampler.some_of_each(0)
    assert classes.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert labels[places].tolist() == [5, 5, 5, 7, 7, 7, 9]
    assert len(set(places.tolist())) == 7
    chosen = {tuple(sorted(sampler.some_of_each(number)[0].tolist())) for number in range(50)}
    assert len(chosen) == 10, "three of the five samples of class 5"


def test_the_newest_table_that_holds() -> None:
    tables = {first: torch.tensor([[first]]) for first in (0, 4, 8)}
    near = neighbourhoods(tables)
    assert [int(near.in_force(step)) for step in (0, 3, 4, 7, 8, 100)] == [0, 0, 4, 4, 8, 8]
    assert [sorted(near.from_step(step)) for step in (0, 4, 7, 8)] == [[0, 4, 8], [4, 8], [4, 8], [8]]
    assert sorted(neighbourhoods({6: tables[4]}).from_step(2)) == [6]


def test_no_table_at_all() -> None:
    message = (
        "datamodule.neighbours: no table of neighbours at step 4; add the callback that computes it (callbacks=default"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        neighbourhoods({8: random_table(CLASSES, 8)}).in_force(4)


def test_defaults_are_filled_in() -> None:
    assert complete(None) is None
    assert complete({}) == {"group": 4, "share": 1.0, "every": 100}
    assert complete({"share": 1, "every": 5}, workers=(LAG - 1) // 2) == {"group": 4, "share": 1, "every": 5}


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        (
            {"gruop": 3},
            "datamodule.neighbours: unknown key 'gruop': did you mean 'group'? allowed: group, share, every",
        ),
        (4, f"{N}: expected null or settings such as {{group: 4}}, got 4"),
        ({"group": 1}, f"{N}.group: expected an integer >= 2, got 1"),
        ({"group": 2.0}, f"{N}.group: expected an integer >= 2, got 2.0"),
        ({"every": 0}, f"{N}.every: expected an integer >= 1, got 0"),
        ({"every": True}, f"{N}.every: expected an integer >= 1, got True"),
        ({"share": 0}, f"{N}.share: expected 0 < share <= 1, got 0"),
        ({"share": 1.5}, f"{N}.share: expected 0 < share <= 1, got 1.5"),
        ({"share": "all"}, f"{N}.share: expected 0 < share <= 1, got 'all'"),
    ],
)
def test_settings_out_of_range(given_: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        complete(given_)


def test_workers_that_read_too_far_ahead() -> None:
    message = "datamodule.num_workers: expected at most 19 with datamodule.neighbours, which must know the classes"
    with pytest.raises(UserError, match=f"^{message} before the workers read them, got 20$"):
        complete({}, workers=20)


@pytest.mark.parametrize(
    ("group", "share", "message"),
    [
        (9, 1.0, "datamodule.neighbours.group: expected 2 to 8, the number of classes in a batch, got 9"),
        (2, 0.1, "datamodule.neighbours.share: expected at least 0.25, which is two of 8 classes in a batch, got 0.1"),
    ],
)
def test_settings_that_do_not_fit_a_batch(group: int, share: float, message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        PKSampler(LABELS, 8, 2, neighbourhoods=Neighbourhoods(group, share))
