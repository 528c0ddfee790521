"""Tests of the data module in a real Trainer: order, augmentation and evaluation, with any number of workers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from typing_extensions import override

from datamodules.augmentation.pixels import Augment
from datamodules.base import PKDataModule
from datamodules.published import CUB, LFW, SOP, Cars, InShop, Market, Omniglot
from datamodules.sampling.dataset import Samples
from metric_module.batch import Batch
from metric_module.errors import UserError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*multi-threaded, use of fork",
    "ignore:.*is smaller than the logging",
)
SIZES = torch.tensor([3, 2, 5, 4, 6, 1, 4, 4])
LABELS = torch.arange(8).repeat_interleave(SIZES)
IMAGES = torch.rand(len(LABELS), 3, 8, 8, generator=torch.Generator().manual_seed(3))


class Toy(PKDataModule):
    """Random images; classes 0 to 4 for training."""

    @override
    def load(self) -> Samples:
        ids = torch.arange(len(LABELS))
        splits = {"train": ids[LABELS < 5], "val": ids[LABELS == 6], "test": ids[(LABELS == 7) | (LABELS == 5)]}
        return Samples(lambda index: IMAGES[index], LABELS, splits, groups=ids % 3)


class Recorder(LightningModule):
    """Module that keeps every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[Batch]] = {"train": [], "val": [], "test": []}

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen["train"].append(batch)
        loss: Tensor = self.weight * batch.inputs.mean()
        return loss

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen["val"].append(batch)

    @override
    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.seen["test"].append(batch)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def quiet_trainer(**options: Any) -> Trainer:
    """Make a Trainer that writes nothing."""
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )


def toy(**options: Any) -> Toy:
    """Make a data module with augmented batches of three classes x four samples."""
    return Toy(3, 4, seed=7, eval_batch_size=3, augment=Augment(fill=0.0), **options)


def recorded(workers: int, perturb: int = 0) -> dict[str, list[Batch]]:
    """Record the batches of two epochs of training and a test."""
    torch.manual_seed(perturb)
    module, data = Recorder(), toy(num_workers=workers)
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    return module.seen


def test_a_trainer_sees_what_sampler_and_keys_say() -> None:
    data, seen = toy(), recorded(workers=0)
    sampler = data.train_sampler()
    assert sampler.batches_per_epoch == 2
    assert len(seen["train"]) == 4
    train = data.samples.splits["train"]
    for step, batch in enumerate(seen["train"]):
        ids = train[sampler.batches(torch.tensor([step]))[0]]
        expected = data.augment_batch(Batch(IMAGES[ids], LABELS[ids], ids), epoch=step // 2)
        assert all(map(torch.equal, batch, expected))
        assert not torch.equal(batch.inputs, IMAGES[ids])


@pytest.mark.parametrize(("workers", "perturb"), [(0, 5), (1, 0), (2, 1)])
def test_workers_and_global_seeds_change_nothing(workers: int, perturb: int) -> None:
    expected, found = recorded(workers=0), recorded(workers, perturb)
    for stage in ("train", "val", "test"):
        assert len(expected[stage]) == len(found[stage]) > 0
        for first, second in zip(expected[stage], found[stage], strict=True):
            assert all(map(torch.equal, first, second))


def test_evaluation_shows_each_sample_once_in_order_and_as_it_is() -> None:
    seen = recorded(workers=0)
    for stage, passes in (("val", 2), ("test", 1)):
        ids = torch.cat([batch.index for batch in seen[stage]])
        inputs = torch.cat([batch.inputs for batch in seen[stage]])
        whole = toy().samples.splits[stage].tolist()
        sanity_check = 2 if stage == "val" else 0
        assert ids.tolist()[-passes * len(whole) :] == passes * whole
        assert len(seen[stage]) == passes * -(-len(whole) // 3) + sanity_check
        assert torch.equal(inputs, IMAGES[ids])


def test_loaders_of_every_split() -> None:
    data = toy()
    assert torch.cat([batch.index for batch in data.predict_dataloader()]).tolist() == list(range(len(LABELS)))
    assert [batch.index.tolist() for batch in data.eval_dataloader("val")] == [[21, 22, 23], [24]]
    assert torch.cat([batch.index for batch in data.eval_dataloader("train")]).tolist() == list(range(20))
    assert data.groups is not None
    assert data.groups.tolist() == (torch.arange(len(LABELS)) % 3).tolist()
    with pytest.raises(UserError, match="unknown split 'valid': expected one of train, val, test, all"):
        data.eval_dataloader("valid")


def test_iterators_draw_nothing_from_the_global_state() -> None:
    data = toy()
    before = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        assert len(list(loader)) == len(loader) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_copies_of_a_sample_in_a_batch_look_different_and_epochs_too() -> None:
    data = toy()
    ids = torch.tensor([4, 4, 9])
    batch = Batch(IMAGES[ids], LABELS[ids], ids)
    first, later = data.augment_batch(batch, epoch=0), data.augment_batch(batch, epoch=1)
    assert not torch.equal(first.inputs[0], first.inputs[1])
    assert not torch.equal(first.inputs, later.inputs)
    alone = data.augment_batch(Batch(*(part[2:] for part in batch)), epoch=0)
    torch.testing.assert_close(alone.inputs[0], first.inputs[2])
    assert not torch.equal(Toy(seed=8, augment=data.augment).augment_batch(batch, 0).inputs, first.inputs)
    assert Toy(augment=None).augment_batch(batch, epoch=0) is batch
    assert data.on_after_batch_transfer(batch, 0) is batch, "no trainer, no training"


class Place:
    """Stand-in for a Trainer with rank and number of processes."""

    def __init__(self, rank: int, world_size: int, distributed_sampler: bool = False) -> None:
        self.global_rank = rank
        self.world_size = world_size
        self._accelerator_connector = type("Connector", (), {"use_distributed_sampler": distributed_sampler})


def test_ranks_share_each_batch_and_the_evaluation() -> None:
    parts: dict[str, list[list[list[int]]]] = {"train": [], "val": []}
    for rank in (0, 1, 2):
        data = toy()
        data.trainer = Place(rank, 3)  # type: ignore[assignment]
        parts["train"].append([batch.index.tolist() for batch in data.train_dataloader()])
        parts["val"].append([batch.index.tolist() for batch in data.val_dataloader()])
    whole = [batch.index.tolist() for batch in toy().train_dataloader()]
    assert [list(chain(*ranks)) for ranks in zip(*parts["train"], strict=True)] == whole
    assert parts["val"] == [[[21, 24]], [[22, 21]], [[23, 22]]]


def test_lightning_must_not_deal_out_samples_too() -> None:
    data = toy()
    data.trainer = Place(0, 3, distributed_sampler=True)  # type: ignore[assignment]
    with pytest.raises(UserError, match="Trainer of 3 processes needs use_distributed_sampler=False"):
        data.train_dataloader()


def test_mistakes_are_found_before_the_first_step() -> None:
    with pytest.raises(UserError, match="eval_batch_size: expected an integer >= 1, got 0"):
        Toy(eval_batch_size=0)
    with pytest.raises(UserError, match="num_workers: expected an integer >= 0, got -1"):
        Toy(num_workers=-1)
    with pytest.raises(
        UserError, match=r"datamodule.classes_per_batch: expected at most 5, the number of training classes, .* got 6$"
    ):
        Toy(6, 4).setup("fit")
    Toy(6, 4).setup("test")
    data = Toy()
    data.load = lambda: Samples(lambda ids: ids, LABELS, {"train": LABELS})  # type: ignore[method-assign]
    with pytest.raises(UserError, match="splits without samples: val, test"):
        data.setup("test")


def test_by_default_a_batch_has_all_classes_up_to_32() -> None:
    assert Toy().train_sampler().classes_per_batch == 5


def test_samples_are_shown_by_class_and_id() -> None:
    assert Toy().show([4, 0]) == ["class 1, sample 4", "class 0, sample 0"]
    assert Toy().class_names_of([4, 0]) == ["class 1", "class 0"]
    assert Toy().names_of([4, 0]) == ["sample 4", "sample 0"]


def test_classes_that_were_trained_on() -> None:
    class Overlap(Toy):
        @override
        def load(self) -> Samples:
            samples = super().load()
            return samples._replace(splits={**samples.splits, "test": torch.tensor([1, 2, 3, 28])})

    assert [Toy().classes_trained_on(split) for split in ("train", "val", "test")] == [5, 0, 0]
    data = Overlap()
    data.samples = data.load()
    assert data.classes_trained_on("test") == 2


def test_a_subclass_names_its_own_arguments_alone() -> None:
    @dataclass(eq=False, repr=False)
    class Named(Toy):
        width: int = 3
        eval_batch_size: int = 7

    data = Named(4, 2, width=5, seed=9)
    assert (data.classes_per_batch, data.samples_per_class, data.width) == (4, 2, 5)
    assert (data.seed, data.eval_batch_size, data.folds) == (9, 7, 4)
    with pytest.raises(UserError, match="num_workers: expected an integer >= 0, got -1"):
        Named(num_workers=-1)


def test_a_training_class_of_one_sample_is_found_before_the_first_step() -> None:
    lonely = torch.arange(len(LABELS))

    class Lonely(Toy):
        @override
        def load(self) -> Samples:
            splits = {
                "train": lonely[(LABELS < 3) | (LABELS == 5)],
                "val": lonely[LABELS == 6],
                "test": lonely[LABELS == 7],
            }
            return Samples(lambda index: IMAGES[index], LABELS, splits, class_names=list("abcdefgh"))

    with pytest.raises(UserError, match=r"data: 1 training classes of a single sample \(.*drop leaves.*\): f$"):
        Lonely().prepare_data()
    Lonely(short_classes="drop").prepare_data()
    Lonely(preflight=False).prepare_data()


@pytest.mark.parametrize("part", [Augment(), *(kind() for kind in (CUB, Cars, InShop, LFW, Market, Omniglot, SOP))])
def test_lightning_copies_a_data_module_field_by_field(part: Any) -> None:
    """As the launcher of ``strategy="ddp_spawn"`` and LightningCLI do, with all dataclasses inside."""
    data = Toy()
    data.augment = part  # any dataclass that a data module may hold
    copied = apply_to_collection((data,), torch.nn.Module, lambda module: module)[0]
    assert copied is not data and copied.augment == part
