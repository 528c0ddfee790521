"""Tables of class neighbours: the nearest centres, the same on every process, without an effect on anything else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch import Callback
from torch import Tensor, nn

import datamodules.base
from metric_module import Batch, Encoder, TripletModule
from metric_module.callbacks.class_neighbours import ClassNeighbours, class_centres, nearest_classes
from metric_module.callbacks.random_state import random_state
from metric_module.distances import DotProduct, Euclidean
from metric_module.errors import UserError
from tests.helpers.clouds import Clouds, run, same_bits
from tests.helpers.processes import on_trainers
from tests.helpers.training import module, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Found 3 module.s. in eval mode")
NEAR = {"group": 2, "every": 3}


class Drawing(Encoder):
    """Dropout and BatchNorm, a part that stays in evaluation mode, and a draw in every forward pass."""

    embedding_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 4)).eval()

    def forward(self, inputs: Tensor) -> Tensor:
        torch.rand(1)
        embeddings: Tensor = self.head(self.backbone(inputs))
        return embeddings


class Tables(Callback):
    """Keeps every table, and checks modes and random numbers around the callback before it."""

    def __init__(self) -> None:
        self.found: dict[int, Tensor] = {}
        self.training: list[list[bool]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *arguments: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.found |= data.neighbour_tables
        self.training.append([part.training for part in pl_module.encoder.modules()])


def clouds(**settings: Any) -> Clouds:
    given: dict[str, Any] = {"neighbours": NEAR, "samples_per_class": 2, **settings}
    return Clouds(classes_per_batch=4, seed=2, **given)


def fit(
    folder: Path, encoder: Encoder, data: Clouds, *callbacks: Callback, **settings: Any
) -> tuple[Trainer, TripletModule]:
    """Train with neighbours; trainer and module."""
    model = module(encoder)
    settings = {"max_epochs": 2, "use_distributed_sampler": False, **settings}
    fitting = trainer(folder, callbacks=[ClassNeighbours(), *callbacks], **settings)
    fitting.fit(model, datamodule=data)
    return fitting, model


@pytest.mark.parametrize("distance", [Euclidean(), DotProduct()])
def test_the_nearest_centres(distance: Any) -> None:
    centres = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).double()
    centres[7] = centres[9]
    expected = []
    for one in range(40):
        others = [(float(distance(centres[one : one + 1], centres[two : two + 1])), two) for two in range(40)]
        expected.append([two for _, two in sorted(others) if two != one][:6])
    found = nearest_classes(centres, 6, distance)
    assert found.dtype == torch.int32
    assert found.tolist() == expected
    assert nearest_classes(centres, 99).shape == (40, 39)


def test_centres_are_means_without_augmentation_in_evaluation_mode(tmp_path: Path) -> None:
    """A slow reference: each class on its own, from the samples that the data module chooses."""
    data = clouds(augment=lambda inputs, keys: inputs + 100 * torch.rand(1), eval_batch_size=5)
    encoder = Drawing()
    watch = Tables()
    fitting, model = fit(tmp_path, encoder, data, watch, max_epochs=1, max_steps=3)
    encoder.eval()
    classes, loader = data.centre_samples(3)
    ids = torch.cat([batch.index for batch in loader])
    with torch.no_grad():
        expected = torch.stack([encoder(data.samples.fetch(ids[classes == one])).mean(dim=0) for one in range(6)])
        found = class_centres(fitting, model, 3)
    torch.testing.assert_close(found, expected)
    assert expected.std(dim=0).min() > 0
    table = torch.cdist(expected, expected).fill_diagonal_(torch.inf).argsort(dim=1)[:, :5]
    assert torch.equal(watch.found[4].long(), table), "after three steps, for the next epoch"
    assert not torch.equal(watch.found[0].long(), table)


def test_a_sample_that_two_processes_load_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five samples, each of two processes loads three: the second one repeats the first sample at its end."""
    fitting, model = fit(tmp_path, Drawing(), clouds(), max_steps=1)
    model.eval()
    data: Any = fitting.datamodule  # type: ignore[attr-defined]
    classes, totals = torch.tensor([0, 0, 1, 1, 2]), list[Tensor]()

    def keep(total: Tensor) -> Tensor:
        totals.append(total)
        return total

    monkeypatch.setattr(f"{ClassNeighbours.__module__}.sum_over_ranks", keep)
    for rank, ids in enumerate([[0, 2, 4], [1, 3, 0]]):
        monkeypatch.setattr(f"{ClassNeighbours.__module__}.shard", lambda rank=rank: (rank, 2))
        parts = [torch.tensor(ids[:2]), torch.tensor(ids[2:])]
        loader = [Batch(data.samples.fetch(part), classes[part], part) for part in parts]
        data.centre_samples = lambda number, loader=loader: (classes, loader)
        with torch.no_grad():
            class_centres(fitting, model, 0)
    with torch.no_grad():
        every = model.encoder(data.samples.fetch(torch.arange(5)))
    torch.testing.assert_close(totals[0] + totals[1], torch.stack([every[:2].sum(0), every[2:4].sum(0), every[4]]))


def test_modes_and_random_numbers_are_restored(tmp_path: Path) -> None:
    data, watch = clouds(augment=lambda inputs, keys: inputs), Tables()
    encoder = Drawing()
    states: list[dict[str, Any]] = []

    class Around(Callback):
        def on_train_batch_end(self, *arguments: Any) -> None:
            states.append(random_state())

    fitting = trainer(tmp_path, callbacks=[Around(), ClassNeighbours(), Around(), watch], max_epochs=2)
    fitting.fit(module(encoder), datamodule=data)
    assert len(states) == 16 and len(watch.found) == 3
    for before, after in zip(states[::2], states[1::2], strict=True):
        assert torch.equal(before["torch"], after["torch"]) and before["python"] == after["python"]
    modes = [True, True, True, True, True, False, False, False]  # encoder, backbone and its three, head and its two
    assert watch.training == [modes] * 8
    assert fitting.state.stage is None or fitting.training is False


def test_tables_come_every_so_many_steps(tmp_path: Path) -> None:
    """Steps of the optimizer count, and not batches; a resumed training does not count the first step twice."""
    callback, watch = ClassNeighbours(), Tables()
    fitting = trainer(tmp_path, callbacks=[callback, watch], max_epochs=3, accumulate_grad_batches=2)
    fitting.fit(module(Drawing()), datamodule=clouds(neighbours={"group": 2, "every": 2}))
    assert fitting.global_step == 6
    assert callback.tables == 4 and callback.seconds > 0
    assert sorted(watch.found) == [0, 4, 8, 12]


def test_without_neighbours_nothing_happens(tmp_path: Path) -> None:
    callback = ClassNeighbours()
    fitting = trainer(tmp_path, callbacks=[callback])
    fitting.fit(module(Drawing()), datamodule=clouds(neighbours=None))
    assert callback.tables == 0


def test_without_the_callback_training_stops(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^datamodule.neighbours: no table of neighbours at step 0; add the callback that comp"
    ):
        trainer(tmp_path).fit(module(Drawing()), datamodule=clouds())


def test_embeddings_that_are_not_finite(tmp_path: Path) -> None:
    broken = Drawing()
    nn.init.constant_(broken.head[1].bias, torch.nan)  # type: ignore[arg-type]
    message = r"^Drawing: NaN or infinity in the embeddings of 6 of 6 training classes at step 0; look at their inputs"
    with pytest.raises(UserError, match=message):
        fit(tmp_path, broken, clouds())


@pytest.mark.parametrize("lag", [1, 40])
def test_a_resumed_training_draws_the_same_batches(lag: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, from the step at which a table was computed, and from the step after it."""
    monkeypatch.setattr(datamodules.base, "LAG", lag)

    class Aside(Callback):
        def on_train_batch_start(self, trainer: Trainer, *arguments: Any) -> None:
            if trainer.global_step in {3, 4}:
                shutil.copy(tmp_path / "whole/checkpoints/last.ckpt", tmp_path / f"{trainer.global_step}.ckpt")

    whole, record = run(tmp_path / "whole", Aside(), neighbours=NEAR)
    _, plain = run(tmp_path / "plain")
    assert record.ids != plain.ids
    for step in (3, 4):
        rest, again = run(tmp_path / f"rest{step}", neighbours=NEAR, ckpt_path=str(tmp_path / f"{step}.ckpt"))
        assert same_bits(rest, whole)
        assert again.ids == {number: ids for number, ids in record.ids.items() if number >= step}


def on_two(folder: Path) -> tuple[dict[int, Tensor], Tensor, list[list[int]]]:
    """Tables and batches of this process, and one table of given centres."""
    watch, data = Tables(), clouds(eval_batch_size=3)
    ids: list[list[int]] = []

    class Ids(Callback):
        def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
            ids.append(batch.index.tolist())

    fit(folder, Drawing(), data, watch, Ids(), devices=2, strategy="ddp")
    centres = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    return watch.found, nearest_classes(centres, 4), ids


@pytest.mark.slow
def test_two_processes_have_one_table_and_draw_the_batches_of_one(tmp_path: Path) -> None:
    (one, table, first), (two, other, second) = on_trainers(on_two, 2, tmp_path, tmp_path)
    centres = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(table, nearest_classes(centres, 4)) and torch.equal(table, other)
    assert sorted(one) == [0, 4, 8]
    assert all(torch.equal(one[step], two[step]) for step in one)
    alone = clouds()
    alone.set_neighbours(one[0], 0)
    batches = [batch.index.tolist() for batch in alone.train_dataloader()]
    assert [mine + others for mine, others in zip(first, second, strict=True)][:4] == batches
