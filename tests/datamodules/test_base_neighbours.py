"""Tests of the tables of class neighbours that a data module keeps: from which batch they hold, and its state."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import datamodules.base
from datamodules.sampling.neighbourhoods import LAG
from metric_module.batch import Batch
from metric_module.errors import UserError
from tests.helpers.clouds import Clouds

NEAR = {"group": 2, "every": 3}
TABLES = [torch.randint(6, (6, 5), generator=torch.Generator().manual_seed(seed)).int() for seed in range(4)]


def clouds(**settings: Any) -> Clouds:
    """Six training classes, of five samples: rounds of 2 batches, epochs of 4."""
    given: dict[str, Any] = {"neighbours": NEAR, **settings}
    return Clouds(classes_per_batch=4, samples_per_class=2, seed=2, **given)


def at(data: Clouds, epoch: int, step: int) -> Clouds:
    """Put the data module into a training whose next batch is this one."""
    loop = SimpleNamespace(batch_idx=step - 1)
    trainer: Any = SimpleNamespace(current_epoch=epoch, fit_loop=loop, num_training_batches=4, global_rank=0)
    trainer.world_size = 1
    data.trainer = trainer
    return data


def batches(data: Clouds, epoch: int = 0) -> list[list[int]]:
    loader = data.train_dataloader()
    sampler: Any = loader.sampler
    sampler.set_epoch(epoch)
    return [batch.index.tolist() for batch in loader]


def test_settings_are_checked_and_completed() -> None:
    assert clouds().neighbours == {"group": 2, "share": 1.0, "every": 3}
    with pytest.raises(UserError, match=r"^datamodule.neighbours.group: expected an integer >= 2, got 0$"):
        clouds(neighbours={"group": 0})
    with pytest.raises(UserError, match=r"^datamodule.neighbours.group: expected 2 to 4, .* got 5$"):
        clouds(neighbours={"group": 5}).setup("fit")
    with pytest.raises(UserError, match=r"^datamodule.num_workers: expected at most 19 .* got 30$"):
        clouds(num_workers=30)


def test_off_is_what_it_was() -> None:
    off, plain = clouds(neighbours=None), Clouds(classes_per_batch=4, samples_per_class=2, seed=2)
    assert batches(off, 1) == batches(plain, 1)
    assert off.state_dict() == {"epoch": 0, "step": 0, "fingerprint": off.fingerprint}
    off.set_neighbours(TABLES[0], 0)
    assert off.neighbour_tables == {} and batches(off, 1) == batches(plain, 1)


def test_without_a_table_no_batch_is_drawn() -> None:
    with pytest.raises(
        UserError, match=r"^datamodule.neighbours: no table of neighbours at step 0; add the callback that comp"
    ):
        batches(clouds())


def test_the_same_batches_with_workers() -> None:
    found = []
    for workers in (0, 2):
        data = clouds(num_workers=workers)
        data.set_neighbours(TABLES[0], 0)
        found.append(batches(data) + batches(data, 1))
    assert found[0] == found[1] != batches(clouds(neighbours=None)) + batches(clouds(neighbours=None), 1)


@pytest.mark.parametrize(
    ("lag", "place", "expected"),
    [
        (40, (0, 0), 0),
        (40, (0, 1), 4),  # no worker reads beyond the epoch
        (40, (1, 0), 4),  # at the end of an epoch nothing of the next one is drawn
        (40, (1, 3), 8),
        (1, (0, 1), 2),
        (1, (0, 2), 4),  # the round of batch 3 has begun before
        (2, (1, 1), 8),
    ],
)
def test_the_first_round_that_is_not_drawn(
    lag: int, place: tuple[int, int], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datamodules.base, "LAG", lag)
    assert at(clouds(), *place).next_neighbours_step == expected


def test_the_lag_exceeds_what_workers_read_ahead() -> None:
    """Torch's loader draws two batches ahead for each worker; 19 workers are allowed."""
    drawn: list[int] = []

    class Watched(Clouds):
        def train_sampler(self) -> Any:
            sampler = super().train_sampler()
            sampler._neighbourhoods.order = self.remember  # type: ignore[union-attr, method-assign]
            return sampler

        def remember(self, number: int, step: int, keyed: Any, classes_per_batch: int) -> Tensor:
            drawn.append(step)
            found: Tensor = keyed()
            return found

    data = Watched(classes_per_batch=2, samples_per_class=1, seed=2, num_workers=1, neighbours=NEAR)
    stream = iter(data.train_dataloader())
    for done in range(1, 12):  # rounds of 3 batches, an epoch of 15
        next(stream)
        assert done <= max(drawn) + 3 and max(drawn) < done + 2 * data.num_workers + 1 <= done + LAG


def test_tables_that_no_batch_needs_are_dropped() -> None:
    data = at(clouds(), 0, 0)
    data.set_neighbours(TABLES[0], 0)
    at(data, 0, 3).set_neighbours(TABLES[1], 4)
    assert sorted(data.neighbour_tables) == [0, 4]
    at(data, 1, 1).set_neighbours(TABLES[2], 8)
    assert sorted(data.neighbour_tables) == [4, 8]
    at(data, 1, 2).set_neighbours(TABLES[3], 8)
    assert data.neighbour_tables == {4: TABLES[1], 8: TABLES[3]}
    assert sorted(at(data, 2, 0).state_dict()["neighbours"]) == [8]


def test_the_state_brings_back_the_batches() -> None:
    data = at(clouds(), 0, 3)
    data.set_neighbours(TABLES[0], 0)
    data.set_neighbours(TABLES[1], 4)
    state = data.state_dict()
    rest = clouds()
    rest.load_state_dict(state)
    assert rest.neighbour_tables == {0: TABLES[0], 4: TABLES[1]}
    data.trainer = None
    assert batches(rest) == batches(data)[3:]
    assert batches(rest, 1) == batches(data, 1)
    rest.setup("fit")
    assert rest.neighbour_tables == {}, "another fit begins without"


def test_a_loader_made_before_the_state_is_read() -> None:
    data, early = clouds(), clouds()
    data.set_neighbours(TABLES[0], 0)
    loader = early.train_dataloader()
    early.load_state_dict(data.state_dict())
    assert [batch.index.tolist() for batch in loader] == batches(data)


def test_samples_for_centres_are_not_augmented() -> None:
    data = clouds(augment=lambda inputs, keys: inputs + 100, eval_batch_size=5)
    classes, loader = data.centre_samples(0)
    assert classes.tolist() == torch.arange(6).repeat_interleave(2).tolist()
    parts: list[Batch] = list(loader)
    assert [len(part.labels) for part in parts] == [5, 5, 2]
    assert torch.cat([part.labels for part in parts]).tolist() == classes.tolist()
    ids = torch.cat([part.index for part in parts])
    assert len(set(ids.tolist())) == 12
    assert torch.equal(torch.cat([part.inputs for part in parts]), data.samples.fetch(ids))
    assert ids.tolist() != torch.cat([part.index for part in data.centre_samples(1)[1]]).tolist()
