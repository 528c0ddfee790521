"""Separation of the same samples before and after training, without an effect on training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from datamodules import Samples
from metric_module import TripletModule, UserError
from metric_module.callbacks import BeforeTraining
from metric_module.callbacks.before_training import margins_around, measure_separation
from metric_module.encoders import MLP
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
    assert seen.losses == expected.losses and seen.validated == expected.validated


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


def test_without_a_data_module_nothing_is_measured(tmp_path: Path) -> None:
    look = BeforeTraining()
    trainer(tmp_path, callbacks=[look]).fit(module(), loader(), loader())
    assert look.before is None


def test_an_encoder_of_the_wrong_length_is_left_for_training_to_refuse(tmp_path: Path) -> None:
    class Short(MLP):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs)[1:]

    with pytest.raises(UserError, match="Short: expected one embedding per label, got 7 for 8 labels"):
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
