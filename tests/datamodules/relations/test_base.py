"""Tests of batches of relations from files, and of training that resumes where it stopped."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule
from torch import Tensor

from datamodules import CaptionsDataModule, InteractionsDataModule, MultiLabelDataModule, PairData, PairDataModule, Side
from metric_module import PairBatch, TripletCriterion, TripletModule, UserError
from metric_module.callbacks import LastCheckpoint
from metric_module.distances import Euclidean
from metric_module.encoders import LookupEncoder, MultiEncoder
from metric_module.evaluation import PairRetrievalMetric, Sought
from metric_module.miners import All, Miner, Random
from metric_module.relations import Links
from tests.helpers.relation_files import captions, labelled, ratings
from tests.helpers.training import trainer


class KilledError(Exception):
    """Exception that no other code catches."""


def module(
    seed: int = 0, watched: list[Any] | None = None, miner: Miner | None = None, killed_at: int = -1
) -> TripletModule:
    torch.manual_seed(seed)
    towers = MultiEncoder({"user": LookupEncoder(30, 4), "item": LookupEncoder(40, 4)})

    class Watched(TripletModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if self.global_step == killed_at:
                raise KilledError
            if watched is not None:
                watched.append(batch)
            return super().training_step(batch, batch_idx)

    criterion = TripletCriterion(Euclidean(), miner or Random(), 0.2)
    return Watched(towers, criterion, partial(torch.optim.AdamW, lr=0.02), metric=PairRetrievalMetric(at=(5,)))


def interactions(folder: Path, **settings: Any) -> InteractionsDataModule:
    ratings(folder)
    return InteractionsDataModule(path=str(folder), queries_per_batch=7, positives_per_query=2, **settings)


def test_masks_know_every_pair_of_the_data_set(tmp_path: Path) -> None:
    data = interactions(tmp_path, random_references=20)
    assert isinstance(data.data.positives, Links)
    assert isinstance(data.data.neither, Links)
    for batch in list(data.train_dataloader()):
        users, items = batch.query["user"], batch.reference["item"]
        assert torch.equal(batch.index, users)
        for row, user in enumerate(users.tolist()):
            near, other = data.data.positives.list_of(user).tolist(), data.data.neither.list_of(user).tolist()
            for column, item in enumerate(items.tolist()):
                assert batch.positives[row, column] == (item in near)
                assert batch.negatives[row, column] == (item not in near and item not in other)
        assert batch.positives.any(dim=1).all()
        assert (~batch.positives & ~batch.negatives).any()


def test_training_learns_and_every_sample_is_read_once(tmp_path: Path) -> None:
    data, model = interactions(tmp_path, random_references=None, eval_batch_size=9), module(miner=All())
    fit = trainer(tmp_path, max_epochs=25)
    before = fit.validate(model, datamodule=data, verbose=False)[0]
    fit.fit(model, datamodule=data)
    after = fit.test(model, datamodule=data, verbose=False)[0]
    assert before["val/queries"] == after["test/queries"] == len(data.sought["test"].queries)
    assert after["test/recall_at_5"] > before["val/recall_at_5"]
    assert "test/loss" not in after, "there are no labels to take a loss of the whole set by"


@pytest.mark.parametrize("stop", [2, 4, 5, 8])
def test_it_goes_on_in_mid_epoch_bit_for_bit(stop: int, tmp_path: Path) -> None:
    """Stop after some batches; an epoch has five."""
    seen: dict[str, list[PairBatch]] = {"whole": [], "parts": []}
    whole, first, rest = module(0, seen["whole"]), module(0, seen["parts"], killed_at=stop), module(1, seen["parts"])
    trainer(tmp_path, max_epochs=3).fit(whole, datamodule=interactions(tmp_path / "data"))
    last = {"enable_checkpointing": True, "max_epochs": 3, "callbacks": [LastCheckpoint(str(tmp_path), 1)]}
    with pytest.raises(KilledError):
        trainer(tmp_path, **last).fit(first, datamodule=interactions(tmp_path / "data"))
    data, path = interactions(tmp_path / "data"), tmp_path / "last.ckpt"
    trainer(tmp_path, **last).fit(rest, datamodule=data, ckpt_path=path, weights_only=True)
    assert len(seen["parts"]) == len(seen["whole"]) == 15
    for one, other in zip(seen["parts"], seen["whole"], strict=True):
        assert torch.equal(one.query["user"], other.query["user"])
        assert torch.equal(one.reference["item"], other.reference["item"])
        assert torch.equal(one.positives, other.positives)
    assert all(torch.equal(value, rest.state_dict()[name]) for name, value in whole.state_dict().items())


def test_captions_and_images(tmp_path: Path) -> None:
    path, cache = str(captions(tmp_path)), str(tmp_path / "cache")
    data = CaptionsDataModule(path=path, cache_dir=cache, queries_per_batch=8, image_size=8, num_workers=0)
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.negatives is None
    assert batch.reference["image"].shape[1:] == (3, 8, 8)
    names = [str(name) for name in (tmp_path / "captions.csv").read_text().splitlines()[1:]]
    for row, text in enumerate(batch.query["text"]):
        owner = names[int(batch.index[row])].partition(".png")[0]
        assert text.strip('"') in names[int(batch.index[row])]
        colour = batch.reference["image"][batch.positives[row]].mean(dim=(2, 3))  # (1, 3)
        assert colour.shape[0] == 1
        assert int(colour.argmax()) == {"red": 0, "green": 1, "blue": 2}.get(
            owner.rstrip("0123456789"), int(colour.argmax())
        )
    texts, images = data.val_dataloader()
    ids = [torch.cat([part.index for part in loader]) for loader in (texts, images)]
    assert len(ids[0]) == 2 * len(ids[1]) == 16
    assert torch.equal(torch.cat(ids), torch.cat(data.sought["val"][:2]))
    trained = torch.unique(data.data.positives.lists(data.data.anchors).columns)
    assert not torch.isin(
        trained + data.data.query.size, torch.cat([data.sought[name].references for name in data.sought])
    ).any()
    (tmp_path / "red0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"^data: 1 files that cannot be read: .*red0.png \(empty file\)$"):
        CaptionsDataModule(path=path, cache_dir=cache).prepare_data()
    assert data.data.reference is not None
    with pytest.raises(UserError, match=r"^data: cannot read .*red0.png"):
        data.data.reference.inputs(torch.arange(40))


def test_several_labels(tmp_path: Path) -> None:
    path = labelled(tmp_path)
    labels = [set(line.partition(",")[2].split("|")) for line in path.read_text().splitlines()[1:]]
    data = MultiLabelDataModule(
        path=str(path),
        image_size=8,
        queries_per_batch=6,
        positives_per_query=1,
        random_references=12,
        preflight=False,
        num_workers=0,
    )
    itself = 0
    for batch in data.train_dataloader():
        drawn = data.train_sampler().draw(0)
        assert batch.query.shape[1:] == batch.reference.shape[1:] == (3, 8, 8)
        if torch.equal(batch.index, drawn.queries):
            for row, query in enumerate(drawn.queries.tolist()):
                for column, other in enumerate(drawn.together.tolist()):
                    shared = bool(labels[query] & labels[other])
                    assert batch.positives[row, column] == (shared and query != other)
                    assert batch.negatives[row, column] == (not shared)
                    itself += query == other
    assert itself > 0
    (loader,) = data.test_dataloader()
    assert torch.equal(torch.cat([batch.index for batch in loader]), data.sought["test"].queries)
    lists = data.sought["test"].positives.lists(torch.arange(8))
    ids = data.sought["test"].queries.tolist()
    for row, query in enumerate(ids):
        expected = [place for place, other in enumerate(ids) if other != query and labels[other] & labels[query]]
        assert lists.list_of(row).tolist() == expected


class Odd(PairDataModule):
    """Data module of given relations."""

    given: PairData

    def load(self) -> PairData:
        return self.given


def test_data_that_cannot_be_trained_on() -> None:
    side, none = Side(lambda rows: rows, 3), torch.zeros(0, dtype=torch.int64)
    odd = Odd()
    odd.given = PairData(side, side, Links.of(none, none, 3), torch.arange(3), torch.arange(3), {})
    with pytest.raises(UserError, match=r"^data: expected queries in train, val and test, got none in val, test$"):
        odd.data  # noqa: B018
    sought = {name: one_pair() for name in ("val", "test")}
    odd.given = odd.given._replace(sought=sought)
    with pytest.raises(
        UserError, match=r"^data: expected a positive for every training query, got none for 3: 0, 1, 2$"
    ):
        odd.data  # noqa: B018
    with pytest.raises(UserError, match=r"^datamodule.eval_batch_size: expected an integer >= 1, got 0$"):
        Odd(eval_batch_size=0)
    with pytest.raises(UserError, match=r"^datamodule.num_workers: expected an integer >= 0, got -1$"):
        Odd(num_workers=-1)


def one_pair() -> Sought:
    one = torch.zeros(1, dtype=torch.int64)
    return Sought(one, one, Links.of(one, one, 1))


def test_lightning_would_draw_other_batches(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^trainer.overfit_batches: Lightning would draw other batches"):
        trainer(tmp_path, overfit_batches=1).fit(module(), datamodule=interactions(tmp_path))
    assert issubclass(TripletModule, LightningModule)
