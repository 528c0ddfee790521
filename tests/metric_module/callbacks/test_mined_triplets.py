"""Mined triplets of three steps, without an effect on training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from metric_module import TripletModule
from metric_module.callbacks import MarginSchedule, MinedTriplets
from metric_module.criterion.examples import categories
from metric_module.encoders import MLP
from metric_module.miners import All, Hard, SelectingMiner, Triplets
from metric_module.training.memory import CrossBatchMemory
from tests.helpers.clouds import EACH, Clouds
from tests.helpers.processes import on_trainers
from tests.helpers.training import Triples, loader, module, trainer


class Drawing(SelectingMiner):
    """A miner that draws from the global generator, as a user's own might."""

    def select(self, distances: Any, positive: Any, negative: Any, margin: Any, uniform: Any) -> Triplets:
        anchor, column = positive.nonzero(as_tuple=True)
        other = negative.float()[anchor].mul(torch.rand(len(anchor), distances.shape[1])).argmax(dim=1)
        return Triplets(anchor, column, other)


def fit(folder: Path, *callbacks: MinedTriplets, model: TripletModule | None = None, **settings: Any) -> TripletModule:
    model = module(miner=All()) if model is None else model
    path = settings.pop("ckpt_path", None)
    data = settings.pop("data", None)
    fitting = trainer(folder, callbacks=list(callbacks), **settings)
    fitting.fit(model, loader(data), ckpt_path=path, weights_only=True)
    fitting.save_checkpoint(folder / "end.ckpt")
    return model


def ids_and_labels() -> dict[int, int]:
    every = Triples().batches
    return {int(id): int(label) for batch in every for id, label in zip(batch.index, batch.labels, strict=True)}


@pytest.mark.parametrize("miner", [All(), Hard(), Drawing()])
@pytest.mark.parametrize("memory", [False, True])
def test_three_steps_are_kept_and_training_does_not_notice(tmp_path: Path, miner: Any, memory: bool) -> None:
    def build() -> TripletModule:
        return module(miner=miner, memory=CrossBatchMemory(32, 3) if memory else None)

    watch = MinedTriplets(count=5)
    one = fit(tmp_path / "a", watch, model=build())
    after = torch.get_rng_state()
    two = fit(tmp_path / "b", model=build())
    assert torch.equal(torch.get_rng_state(), after)
    for name, value in two.state_dict().items():
        assert torch.equal(one.state_dict()[name], value), name
    assert {phase: (kept["step"], kept["steps"]) for phase, kept in watch.mined.items()} == {
        "start": (0, 8),
        "middle": (4, 8),
        "end": (7, 8),
    }
    label = ids_and_labels()
    for kept in watch.mined.values():
        assert kept["ids"].shape == (5, 3) and kept["distances"].shape == (5, 2) and kept["margin"] == 0.3
        assert kept["miner"] == type(miner).__name__
        assert all(label[a] == label[p] != label[n] and a != p for a, p, n in kept["ids"].tolist())
        if isinstance(miner, Hard):
            d_ap, d_an = kept["distances"].unbind(dim=1)
            assert categories(d_ap, d_an, margin=0.3) == ["hard"] * 5
    assert one.criterion.watch is None


def test_a_resume_keeps_what_was_kept(tmp_path: Path) -> None:
    whole, first, rest = MinedTriplets(), MinedTriplets(), MinedTriplets()
    fit(tmp_path / "whole", whole, max_epochs=4)
    model = module(miner=All())
    fitting = trainer(tmp_path, callbacks=[first], max_epochs=2)
    fitting.fit(model, loader())
    fitting.save_checkpoint(tmp_path / "part.ckpt")
    fit(tmp_path / "rest", rest, model=module(miner=All(), seed=1), max_epochs=4, ckpt_path=tmp_path / "part.ckpt")
    assert rest.mined["start"]["step"] == 0 and rest.mined["end"]["step"] == 15
    for phase in ("start", "end"):
        for name in ("ids", "distances"):
            assert torch.equal(rest.mined[phase][name], whole.mined[phase][name]), (phase, name)


def test_the_margin_in_force(tmp_path: Path) -> None:
    watch = MinedTriplets()
    model = module(miner=All())
    trainer(tmp_path, callbacks=[watch, MarginSchedule(end=1.1)], logger=False).fit(model, loader())
    assert [kept["margin"] for kept in watch.mined.values()] == pytest.approx([0.3, 0.7, 1.0])


def test_accumulated_batches_count_as_one_step(tmp_path: Path) -> None:
    watch = MinedTriplets()
    fit(tmp_path, watch, accumulate_grad_batches=2)
    assert [kept["step"] for kept in watch.mined.values()] == [0, 2, 3]
    first = set(Triples().batches[0].index.tolist())
    assert set(watch.mined["start"]["ids"].flatten().tolist()) <= first


def test_without_ids_nothing_is_kept(tmp_path: Path) -> None:
    plain = [(batch.inputs, batch.labels) for batch in Triples().batches]
    watch = MinedTriplets()
    trainer(tmp_path, callbacks=[watch]).fit(module(miner=All()), DataLoader(plain, batch_size=None))  # type: ignore[arg-type]
    assert watch.mined == {}


def test_masks_instead_of_labels_are_left_alone(tmp_path: Path) -> None:
    class Masked(TripletModule):
        def mine(self, batch: Any, census: bool) -> Any:
            same = batch.labels[:, None] == batch.labels
            return self.criterion(self(batch.inputs), None, positives=same.fill_diagonal_(False), census=census)

    made = module(miner=All())
    watch = MinedTriplets()
    trainer(tmp_path, callbacks=[watch]).fit(Masked(made.encoder, made.criterion), loader())
    assert watch.mined == {}


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_short_training(tmp_path: Path, steps: int) -> None:
    watch = MinedTriplets()
    fit(tmp_path, watch, max_steps=steps, max_epochs=-1)
    assert [kept["step"] for kept in watch.mined.values()] == list(range(steps))


def test_a_step_that_fails_leaves_no_hook(tmp_path: Path) -> None:
    class Broken(TripletModule):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise KeyError("broken")

    made = module(miner=All())
    broken = Broken(made.encoder, made.criterion)
    with pytest.raises(KeyError, match="broken"):
        trainer(tmp_path, callbacks=[MinedTriplets()]).fit(broken, loader())
    assert made.criterion.watch is None


def on_two(folder: Path, remember: bool) -> Any:
    """Ids of every triplet that this process kept."""
    watch = MinedTriplets()
    model = module(
        MLP(in_features=6, embedding_dim=3, hidden=(8,)), memory=CrossBatchMemory(20, 3) if remember else None
    )
    settings: dict[str, Any] = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}
    data = Clouds(classes_per_batch=4, samples_per_class=2)
    trainer(folder, callbacks=[watch], **settings).fit(model, datamodule=data)
    return {phase: kept["ids"] for phase, kept in watch.mined.items()}


@pytest.mark.parametrize("remember", [False, True])
def test_two_processes_name_samples_of_both(tmp_path: Path, remember: bool) -> None:
    """Each process has its own anchors, and negatives of the other one."""
    kept = on_trainers(on_two, 2, tmp_path, tmp_path, remember)
    for mined in kept:
        assert list(mined) == ["start", "middle", "end"]
        for anchor, positive, negative in torch.cat(list(mined.values())).tolist():
            assert anchor // EACH == positive // EACH != negative // EACH and anchor != positive
    anchors = [set(mined["start"][:, 0].tolist()) for mined in kept]
    negatives = [set(mined["start"][:, 2].tolist()) for mined in kept]
    assert not anchors[0] & anchors[1]
    assert negatives[0] & anchors[1] or negatives[1] & anchors[0]
