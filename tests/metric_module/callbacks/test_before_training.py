"""Separation of the same samples before and after training, without an effect on training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from datamodules import Samples
from metric_module import TripletModule, UserError
from metric_module.callbacks import BeforeTraining, LastCheckpoint
from metric_module.callbacks.before_training import margins_around, measure_separation
from metric_module.encoders import MLP
from metric_module.evaluation import retrieval_metrics
from metric_module.storage.checkpoints import load_checkpoint
from tests.helpers.clouds import EACH, Clouds, Noisy, run, same_bits
from tests.helpers.processes import on_trainers
from tests.helpers.training import loader, module, trainer

TWO: dict[str, Any] = {"devices": 2, "strategy": "ddp"}
VAL = list(range(6 * EACH, 9 * EACH))


class Drawing(Clouds):
    """Validation data that draws from the global generator for each batch, as a user's own data might."""

    def load(self) -> Samples:
        samples = super().load()

        def fetch(ids: Tensor) -> Tensor:
            found: Tensor = samples.fetch(ids)
            return found + 0 * torch.rand(())

        return samples._replace(fetch=fetch)


def tiny(seed: int = 0) -> TripletModule:
    torch.manual_seed(seed)
    return module(MLP(in_features=6, embedding_dim=3, hidden=(8,)))


def data(kind: type[Clouds] = Clouds) -> Clouds:
    return kind(classes_per_batch=4, samples_per_class=2, seed=2, eval_batch_size=4)


def fit(folder: Path, *callbacks: BeforeTraining, kind: type[Clouds] = Clouds, **settings: Any) -> TripletModule:
    model, source, path = tiny(), data(kind), settings.pop("ckpt_path", None)
    fitting = trainer(folder, callbacks=list(callbacks), **settings)
    fitting.fit(model, datamodule=source, ckpt_path=path, weights_only=True)
    fitting.save_checkpoint(folder / "end.ckpt")
    fitting.validate(model, datamodule=source, verbose=False, weights_only=True)
    return model


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64"])
def test_samples_are_converted_to_the_precision_of_the_trainer(tmp_path: Path, precision: str) -> None:
    looks = [BeforeTraining(), BeforeTraining()]
    for look, name in zip(looks, ("32", precision), strict=True):
        model = tiny()
        model._optimizer = torch.optim.SGD  # has no eps, which may be 0 in float16
        trainer(tmp_path, callbacks=[look], precision=name, max_steps=1).fit(model, datamodule=data())
    exact, found = (look.before for look in looks)
    assert exact is not None and found is not None and 0 < exact.hard[10] < 1 and 0 < exact.easy[10] < 1
    for field in ("easy", "semihard", "hard"):
        torch.testing.assert_close(getattr(found, field), getattr(exact, field), atol=0.05, rtol=0)


def test_the_whole_of_val_before_and_after(tmp_path: Path) -> None:
    look = BeforeTraining()
    model = fit(tmp_path, look)
    points, labels = data().samples.fetch(torch.tensor(VAL)), data().samples.labels[torch.tensor(VAL)]
    assert look.ids is not None and look.ids.tolist() == VAL
    assert look.before is not None and look.after is not None
    for measured, weights in ((look.before, tiny()), (look.after, model)):
        with torch.no_grad():
            embeddings = weights.eval()(points)
        expected = measure_separation(embeddings, labels, 0.3, model.criterion.distance)
        assert expected is not None
        for name, value in expected._asdict().items():
            torch.testing.assert_close(getattr(measured, name), value, msg=name)
    assert not torch.equal(look.before.easy, look.after.easy)
    assert look.before.margins[10] == 0.3


@pytest.mark.parametrize("kind", [Clouds, Drawing])
def test_training_does_not_notice(tmp_path: Path, kind: type[Clouds], monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout draws from the global generator in every step."""
    monkeypatch.setattr("tests.helpers.clouds.Clouds", kind)
    one, seen = run(tmp_path / "a", BeforeTraining())
    after = torch.get_rng_state()
    two, expected = run(tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), after)
    assert same_bits(one, two)
    assert seen.losses == expected.losses and seen.validated == [0, *expected.validated]


@pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")
def test_modes_are_as_they_were(tmp_path: Path) -> None:
    class Half(Noisy):
        """An encoder with a submodule that remains in evaluation mode."""

        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            self.backbone.eval()
            return self

    seen: list[tuple[bool, bool, bool]] = []

    class Record(TripletModule):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            seen.append((self.training, self.encoder.training, self.encoder.get_submodule("backbone").training))
            return super().training_step(batch, batch_idx)

    made = module(Half())
    model = Record(made.encoder, made.criterion)
    model.encoder.train()
    trainer(tmp_path, callbacks=[BeforeTraining()]).fit(model, datamodule=data())
    assert set(seen) == {(True, True, False)}


def test_a_resume_keeps_it_and_needs_no_more_than_plain_values(tmp_path: Path) -> None:
    first, rest = BeforeTraining(), BeforeTraining()
    fit(tmp_path, first)
    state = torch.load(tmp_path / "end.ckpt", weights_only=True)
    assert any("BeforeTraining" in key for key in state["callbacks"])
    fit(tmp_path / "rest", rest, max_epochs=3, ckpt_path=tmp_path / "end.ckpt")
    assert first.before is not None and rest.before is not None and rest.after is not None
    assert all(torch.equal(one, other) for one, other in zip(first.before, rest.before, strict=True))


def test_what_another_version_measured_is_left_alone() -> None:
    look = BeforeTraining()
    look.load_state_dict({"ids": torch.tensor([1]), "before": {"edges": torch.zeros(3)}})
    assert look.ids is None and look.before is None
    look.load_state_dict(BeforeTraining().state_dict())
    assert look.before is None


def test_a_resume_from_a_checkpoint_without_it_measures_nothing(tmp_path: Path) -> None:
    fit(tmp_path)
    look = BeforeTraining()
    fit(tmp_path / "rest", look, max_epochs=3, ckpt_path=tmp_path / "end.ckpt")
    assert look.before is None and look.after is None


@pytest.mark.parametrize(("samples", "classes"), [(14, 2), (10, 2), (9, 1), (15, 3)])
def test_whole_classes_that_fit(tmp_path: Path, samples: int, classes: int) -> None:
    look = BeforeTraining(samples)
    fit(tmp_path, look)
    if classes == 1:
        assert look.before is None, "one class alone has no negatives"
        return
    assert look.ids is not None and look.ids.tolist() == VAL[: classes * EACH]
    assert look.after is not None


def test_as_much_as_a_validation_reads(tmp_path: Path) -> None:
    for number, limit in enumerate((3, 0.75, 0)):
        look = BeforeTraining()
        fitting = trainer(tmp_path / str(number), callbacks=[look], limit_val_batches=limit, max_epochs=1)
        fitting.fit(tiny(), datamodule=data())
        assert (look.ids is None) if limit == 0 else look.ids is not None and look.ids.tolist() == VAL[:12]


def test_a_validation_of_other_samples_is_no_comparison(tmp_path: Path) -> None:
    look, model = BeforeTraining(), tiny()
    trainer(tmp_path, callbacks=[look]).fit(model, datamodule=data())
    trainer(tmp_path, callbacks=[look], limit_val_batches=1).validate(model, datamodule=data(), verbose=False)
    assert look.before is not None and look.after is None


@pytest.mark.filterwarnings("ignore:Your `val_dataloader`'s sampler has shuffling enabled")
@pytest.mark.parametrize(("shuffle", "measured"), [(False, list(range(20))), (True, None)])
def test_the_first_of_several_loaders_without_ids(tmp_path: Path, shuffle: bool, measured: list[int] | None) -> None:
    class Plain(Clouds):
        def val_dataloader(self) -> list[DataLoader[Any]]:
            points = TensorDataset(torch.randn(20, 6), torch.arange(20) // 5)
            return [DataLoader(points, batch_size=7, shuffle=shuffle), DataLoader(points, batch_size=3)]

    look = BeforeTraining()
    trainer(tmp_path, callbacks=[look], max_epochs=1).fit(tiny(), datamodule=data(Plain))
    assert (None if look.ids is None else look.ids.tolist()) == measured


def test_loaders_without_a_data_module(tmp_path: Path) -> None:
    look = BeforeTraining()
    trainer(tmp_path, callbacks=[look]).fit(module(), loader(), loader())
    assert look.before is not None and 0 < look.figures["recall_at_1"] <= 1 and look.raw


def test_an_encoder_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    class Short(MLP):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs)[1:]

    with pytest.raises(UserError, match="Short: expected one embedding per label, got 3 for 4 labels"):
        trainer(tmp_path, callbacks=[BeforeTraining()], num_sanity_val_steps=0).fit(
            module(Short(in_features=6, embedding_dim=3, hidden=(8,))), datamodule=data()
        )


def test_margins() -> None:
    assert margins_around(0.3)[10] == 0.3
    assert max(margins_around(0.3)) == pytest.approx(0.75)
    assert margins_around(0)[0] == 0 and max(margins_around(0)) == pytest.approx(1)


def on_two(folder: Path, samples: int) -> Any:
    look = BeforeTraining(samples)
    fit(folder, look, use_distributed_sampler=False, **TWO)
    assert look.ids is not None and look.before is not None
    return look.ids.tolist(), tuple(look.before), None if look.after is None else tuple(look.after)


@pytest.mark.integration
@pytest.mark.parametrize("samples", [2000, 12])
def test_two_processes_measure_what_one_does(tmp_path: Path, samples: int) -> None:
    look = BeforeTraining(samples)
    fit(tmp_path / "one", look)
    for ids, before, after in on_trainers(on_two, 2, tmp_path / "two", tmp_path / "two", samples):
        assert look.ids is not None and look.before is not None
        assert ids == look.ids.tolist()
        for name, one, other in zip(look.before._fields, look.before, before, strict=True):
            near = 2 if name in {"positive", "negative"} else 0.02  # rounding moves a pair into the next bin
            torch.testing.assert_close(one, other, atol=near, rtol=0, msg=name)
        assert after is not None


def oracle(embeddings: Tensor, ids: Tensor) -> dict[str, float]:
    return retrieval_metrics(embeddings, data().samples.labels[ids], ids)


def test_figures_of_the_initial_weights_and_of_the_inputs(tmp_path: Path) -> None:
    look, ids = BeforeTraining(samples=4), torch.tensor(VAL)
    fit(tmp_path, look)
    points = data().samples.fetch(ids)
    with torch.no_grad():
        expected = oracle(tiny().eval()(points), ids)
    assert {name: look.figures[name] for name in expected} == pytest.approx(expected)
    assert look.raw == pytest.approx(oracle(points, ids)) and look.raw_absent is None
    assert 0 < look.raw["map_at_r"] < 1 and look.raw["map_at_r"] != look.figures["map_at_r"]
    assert look.figures.keys() - look.raw.keys() == {"loss"}


def test_groups_and_queries_count_for_the_inputs_too(tmp_path: Path) -> None:
    class Asked(Clouds):
        """Every third sample is a query; the others are two groups."""

        @property
        def queries(self) -> Tensor:
            return torch.arange(len(self.samples.labels)) % 3 == 0

    look, ids = BeforeTraining(), torch.tensor(VAL)
    fit(tmp_path, look, kind=Asked)
    points, labels, asked = data().samples.fetch(ids), data().samples.labels[ids], ids % 3 == 0
    rest = {"gallery": points[~asked], "gallery_labels": labels[~asked], "gallery_ids": ids[~asked]}
    expected = retrieval_metrics(points[asked], labels[asked], ids[asked], **rest)
    assert look.raw == pytest.approx(expected) and 0 < expected["map_at_r"] < 1


def test_why_inputs_are_not_measured(tmp_path: Path) -> None:
    class Counted(Clouds):
        def load(self) -> Samples:
            return super().load()._replace(fetch=lambda ids: ids)

    class Table(MLP):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(torch.nn.functional.one_hot(inputs, 60).float())

    look = BeforeTraining()
    model = module(Table(in_features=60, embedding_dim=3, hidden=(8,)))
    trainer(tmp_path, callbacks=[look]).fit(model, datamodule=data(Counted))
    assert look.raw == {} and look.raw_absent == "the inputs are not numbers of one fixed shape"
    assert 0 < look.figures["recall_at_1"] <= 1


class Worse(TripletModule):
    """Figures that are lower with each validation: 0.9 before training, then 0.8, 0.7, ..."""

    validations = 0

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.validations += 1
        self.log("val/quality", 1 - self.validations / 10)


def saving(folder: Path, mode: str, **settings: Any) -> tuple[ModelCheckpoint, Trainer]:
    best = ModelCheckpoint(folder, "best", "val/quality", mode=mode, save_on_train_epoch_end=False, **settings)
    made = trainer(folder, callbacks=[BeforeTraining(), best, LastCheckpoint(str(folder))], enable_checkpointing=True)
    return best, made


@pytest.mark.parametrize(("mode", "step"), [("max", 0), ("min", 8)])
def test_step_0_is_a_candidate_for_the_best_checkpoint(tmp_path: Path, mode: str, step: int) -> None:
    best, fitting = saving(tmp_path, mode, enable_version_counter=False)
    model = tiny()
    fitting.fit(Worse(model.encoder, model.criterion), datamodule=data())
    saved = load_checkpoint(best.best_model_path)
    assert saved["global_step"] == step and [path.name for path in tmp_path.glob("best*")] == ["best.ckpt"]
    assert float(best.best_model_score or 0) == pytest.approx(0.9 if mode == "max" else 0.7)
    weights = tiny().state_dict()
    assert all(torch.equal(saved["state_dict"][name], weights[name]) for name in weights) == (step == 0)


def test_several_checkpoints_are_kept_with_step_0(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, "{step}", "val/quality", mode="max", save_top_k=2, save_on_train_epoch_end=False)
    model = tiny()
    fitting = trainer(tmp_path, callbacks=[BeforeTraining(), best], enable_checkpointing=True, max_epochs=3)
    fitting.fit(Worse(model.encoder, model.criterion), datamodule=data())
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["step=0.ckpt", "step=4.ckpt"]


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_training_from_step_0_is_the_whole_training(tmp_path: Path) -> None:
    """The checkpoint of step 0 has no optimizer state yet, and the loaders have not begun."""
    best, fitting = saving(tmp_path / "one", "max")
    model = tiny()
    one = Worse(model.encoder, model.criterion)
    fitting.fit(one, datamodule=data())
    _, again = saving(tmp_path / "two", "max")
    model = tiny(seed=5)
    two = Worse(model.encoder, model.criterion)
    again.fit(two, datamodule=data(), ckpt_path=best.best_model_path, weights_only=True)
    assert again.global_step == fitting.global_step == 8
    assert all(torch.equal(one.state_dict()[name], two.state_dict()[name]) for name in one.state_dict())


def test_a_short_sanity_check_has_no_figures(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    class Record(Callback):
        def on_sanity_check_end(self, trainer: Trainer, pl_module: Any) -> None:
            seen.append(dict(trainer.callback_metrics))

    trainer(tmp_path, callbacks=[Record()], num_sanity_val_steps=2).fit(tiny(), datamodule=data())
    trainer(tmp_path, callbacks=[BeforeTraining(), Record()], fast_dev_run=True).fit(tiny(), datamodule=data())
    assert seen == [{}]


def figures_on_two(folder: Path) -> Any:
    look = BeforeTraining()
    fit(folder, look, use_distributed_sampler=False, **TWO)
    return look.figures, look.raw


@pytest.mark.integration
def test_two_processes_have_the_figures_of_one(tmp_path: Path) -> None:
    look = BeforeTraining()
    fit(tmp_path / "one", look)
    for figures, raw in on_trainers(figures_on_two, 2, tmp_path / "two", tmp_path / "two"):
        assert raw == pytest.approx(look.raw) and figures == pytest.approx(look.figures)
