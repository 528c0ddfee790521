"""Tests of the training order: exactly P x K, for any number of processes, and no class or sample is left out."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datamodules.sampling.pk_sampler import PKSampler, ShardedSampler
from metric_module.errors import UserError

SIZES = (1, 2, 3, 4, 5, 6, 7, 9, 12, 30, 4)
LABELS = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES)) * 3 - 4
SHUFFLED = LABELS[torch.arange(len(LABELS)) * 32 % len(LABELS)]


def check_p_by_k(labels: Tensor, batches: Tensor, p: int, k: int) -> None:
    """Check that each row has P distinct classes x K samples, repeated evenly and only in small classes."""
    blocks = labels[batches].view(len(batches), p, k)
    assert (blocks == blocks[:, :, :1]).all()
    firsts = blocks[:, :, 0].sort(dim=1).values
    assert (firsts[:, 1:] != firsts[:, :-1]).all()
    sizes = (labels[:, None] == labels).sum(dim=1)[batches].view(-1, p, k)[:, :, 0]
    samples = batches.view(-1, p, k)
    copies = (samples[..., None] == samples[..., None, :]).sum(dim=-1)
    assert (copies.amax(dim=-1) == -(-k // sizes)).all()
    assert (copies.amin(dim=-1) == (k // sizes).clamp(min=1)).all()


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_exactly_p_by_k_for_a_thousand_epochs_on_disjoint_ranks(world_size: int) -> None:
    whole = PKSampler(SHUFFLED, 4, 3)
    steps = torch.arange(1000 * whole.batches_per_epoch)
    parts = [PKSampler(SHUFFLED, 4, 3, rank=r, world_size=world_size).batches(steps) for r in range(world_size)]
    assert parts[0].shape == (7000, 12 // world_size)
    check_p_by_k(SHUFFLED, torch.cat(parts, dim=1), 4, 3)
    assert torch.equal(torch.cat(parts, dim=1), whole.batches(steps))
    classes = [SHUFFLED[part].view(len(steps), -1, 3)[..., 0] for part in parts]
    for i, mine in enumerate(classes):
        for theirs in classes[:i]:
            assert (mine[:, :, None] != theirs[:, None, :]).all()


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_p_by_k_for_any_labels(data: st.DataObject) -> None:
    labels = torch.tensor(data.draw(st.lists(st.integers(-3, 6), min_size=1, max_size=60)))
    classes = len(set(labels.tolist()))
    share = data.draw(st.integers(1, max(1, classes // 2)))
    world_size = data.draw(st.integers(1, classes // share))
    k = data.draw(st.integers(1, 6))
    seed = data.draw(st.integers(0, 1 << 64))
    samplers = [
        PKSampler(labels, share * world_size, k, seed=seed, rank=r, world_size=world_size) for r in range(world_size)
    ]
    batches = torch.cat([sampler.batches(torch.arange(40), epoch=3) for sampler in samplers], dim=1)
    check_p_by_k(labels, batches, share * world_size, k)


@pytest.mark.parametrize(("p", "k"), [(4, 3), (5, 4), (11, 2), (2, 7)])
def test_every_class_has_a_turn_in_every_round_and_every_sample_in_every_sweep(p: int, k: int) -> None:
    per_round = -(-len(SIZES) // p)
    rounds = 600
    batches = PKSampler(SHUFFLED, p, k, seed=5).batches(torch.arange(rounds * per_round)).view(rounds, -1, k)
    for number in range(rounds):
        turns = Counter(SHUFFLED[batches[number, :, 0]].tolist())
        assert set(turns) == set(LABELS.tolist())
        assert set(turns.values()) <= {1, 2}
    regular = batches[:, : len(SIZES)].reshape(-1, k)
    for label, size in zip(sorted(set(LABELS.tolist())), SIZES, strict=True):
        sweep = -(-size // k)
        turns_of_class = regular[SHUFFLED[regular[:, 0]] == label]
        for start in range(0, rounds - sweep + 1, sweep):
            assert len(set(turns_of_class[start : start + sweep].flatten().tolist())) == size


def test_classes_and_samples_come_equally_often_in_random_order() -> None:
    labels = torch.arange(10).repeat_interleave(6)
    batches = PKSampler(labels, 4, 4).batches(torch.arange(6000))
    classes = labels[batches[:, ::4]].flatten().bincount().double()
    assert (classes / classes.mean() - 1).abs().max() < 0.03
    samples = batches.flatten().bincount().double()
    assert (samples / samples.mean() - 1).abs().max() < 0.06
    pairs = labels[batches[:, :8:4]]
    together = (pairs[:, 0] * 10 + pairs[:, 1]).bincount(minlength=100).double().view(10, 10)
    off_diagonal = together[~torch.eye(10, dtype=torch.bool)]
    assert off_diagonal.min() > 0.5 * off_diagonal.mean()


def test_nothing_depends_on_global_random_state_or_moves_it() -> None:
    def everything(seed: int) -> list[int]:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        sampler = PKSampler(SHUFFLED, 4, 3, seed=1, rank=1, world_size=2)
        sampler.set_epoch(2)
        return list(sampler)

    first = everything(1)
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index] # noqa: NPY002
    assert everything(1) == first
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # type: ignore[index] # noqa: NPY002
    assert everything(2) == first


def test_iterating_is_the_steps_one_after_another() -> None:
    sampler = PKSampler(SHUFFLED, 4, 3, rank=1, world_size=2)
    assert (sampler.batches_per_epoch, sampler.batch_size, len(sampler)) == (7, 6, 42)
    assert 7 * 4 * 3 >= len(SHUFFLED) > 6 * 4 * 3
    for epoch in (0, 3):
        sampler.set_epoch(epoch)
        drawn = torch.tensor(list(sampler)).view(7, 6)
        assert torch.equal(drawn, sampler.batches(torch.arange(7)))
        assert torch.equal(drawn[5:6], sampler.batches(torch.tensor([5]), epoch=epoch))
        assert torch.equal(drawn[2:3], sampler.batches(torch.tensor([2 + 7 * epoch]), epoch=0))


def test_long_epochs_are_drawn_chunk_by_chunk() -> None:
    labels = torch.arange(30_000) % 100
    sampler = PKSampler(labels, 10, 5)
    assert torch.equal(torch.tensor(list(sampler)).view(-1, 50), sampler.batches(torch.arange(600)))


def test_seeds_and_epochs_differ() -> None:
    orders = set()
    for seed in (0, 1):
        sampler = PKSampler(SHUFFLED, 4, 3, seed=seed)
        for epoch in (0, 1, 2):
            sampler.set_epoch(epoch)
            orders.add(tuple(sampler))
    assert len(orders) == 6


def test_pinned_order() -> None:
    assert list(PKSampler([0, 0, 0, 1, 1, 1, 2, 2, 2], 2, 2, seed=0)) == [4, 3, 8, 6, 0, 1, 3, 4, 5, 4, 7, 8]


def test_short_classes_can_be_dropped_or_refused() -> None:
    sampler = PKSampler(SHUFFLED, 4, 4, short_classes="drop")
    drawn = SHUFFLED[sampler.batches(torch.arange(200)).flatten()]
    assert set(drawn.tolist()) == set(LABELS.tolist()) - {-4, -1, 2}
    assert sampler.batches_per_epoch == -(-(len(LABELS) - 6) // 16)
    with pytest.raises(
        UserError, match=r"3 classes have fewer than samples_per_class=4 samples.*-4 \(1\), -1 \(2\), 2 \(3\)"
    ):
        PKSampler(SHUFFLED, 4, 4, short_classes="error")


@pytest.mark.parametrize(("classes", "expected"), [(2, 2), (5, 5), (32, 32), (70, 32)])
def test_as_many_classes_as_there_are(classes: int, expected: int) -> None:
    labels = torch.arange(classes * 3) % classes
    sampler = PKSampler(labels, None, 2)
    assert sampler.classes_per_batch == expected
    assert list(sampler) == list(PKSampler(labels, expected, 2))
    dropped = PKSampler(torch.cat([labels, torch.tensor([100, 101])]), None, 2, short_classes="drop")
    assert list(dropped) == list(sampler)


def test_ranks_do_not_change_how_many_classes_there_are() -> None:
    assert PKSampler([0, 0, 1, 1, 2, 2, 3, 3], None, 2, world_size=2).classes_per_batch == 4
    with pytest.raises(UserError, match="expected a multiple of 3 processes, for example 3, got 4"):
        PKSampler([0, 0, 1, 1, 2, 2, 3, 3], None, 2, world_size=3)
    with pytest.raises(
        UserError, match=r"classes_per_batch: expected at most 1, the number of training classes, or null .* got 2$"
    ):
        PKSampler([0, 0], None, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes_per_batch": 0}, "^datamodule.classes_per_batch: expected an integer >= 1, got 0$"),
        ({"samples_per_class": -2}, "^datamodule.samples_per_class: expected an integer >= 1, got -2$"),
        ({"world_size": 3}, "datamodule.classes_per_batch: expected a multiple of 3 processes, for example 3, got 4"),
        ({"rank": 2, "world_size": 2}, "expected 0 <= rank < world_size, got rank=2 and world_size=2"),
        ({"rank": -1}, "got rank=-1 and world_size=1"),
        (
            {"classes_per_batch": 12},
            "expected at most 11, the number of training classes, or null to use that number, got 12$",
        ),
        (
            {"samples_per_class": 9, "short_classes": "drop"},
            r"at most 3, the number of training classes \(8 with fewer than 9 samples are dropped\), or null .* got 4$",
        ),
        ({"short_classes": "Repeat"}, "unknown short_classes 'Repeat': expected one of repeat, drop, error"),
        ({"labels": torch.zeros(4)}, "expected labels as integers"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    usual: dict[str, object] = {"labels": LABELS, "classes_per_batch": 4, "samples_per_class": 3}
    with pytest.raises(UserError, match=message):
        PKSampler(**{**usual, **arguments})  # type: ignore[arg-type]


def test_negative_epoch() -> None:
    with pytest.raises(UserError, match="expected an epoch >= 0, got -1"):
        PKSampler(LABELS, 2, 2).set_epoch(-1)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 21])
def test_evaluation_shows_every_sample_on_equally_long_ranks(count: int, world_size: int) -> None:
    ranks = [list(ShardedSampler(count, rank, world_size)) for rank in range(world_size)]
    assert {len(rank) for rank in ranks} == {len(ShardedSampler(count, 0, world_size))} == {-(-count // world_size)}
    in_turn = [i for turn in zip(*ranks, strict=True) for i in turn]
    assert in_turn[:count] == list(range(count))
    assert in_turn[count:] == [i % count for i in range(len(in_turn) - count)]


def test_nothing_to_evaluate() -> None:
    with pytest.raises(UserError, match="at least one sample to evaluate, got 0"):
        ShardedSampler(0)
    with pytest.raises(UserError, match="got rank=1 and world_size=1"):
        ShardedSampler(3, 1, 1)


def test_an_epoch_continues_at_any_step() -> None:
    sampler = PKSampler(torch.arange(40) // 4, classes_per_batch=2, samples_per_class=2)
    sampler.set_epoch(3)
    whole = list(sampler)
    for step in range(sampler.batches_per_epoch + 1):
        sampler.start_at(3, step)
        assert list(sampler) == whole[step * sampler.batch_size :]
        assert len(sampler) == len(whole)
    sampler.set_epoch(4)
    assert len(list(sampler)) == len(whole), "other epochs are whole"
    with pytest.raises(UserError, match="expected a step >= 0, got -1"):
        sampler.start_at(3, -1)
