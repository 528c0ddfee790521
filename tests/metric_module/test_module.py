"""TripletModule in a plain Trainer: hooks, figures equal to the pure functions, messages about bad input."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, StepLR
from torch.utils.data import DataLoader, TensorDataset

from metric_module import Batch, Encoder, TripletCriterion, TripletModule, UserError
from metric_module.distances import Euclidean
from metric_module.embedding_module import EmbeddingModule
from metric_module.encoders import MLP, ConvNet, TimmEncoder
from metric_module.evaluation import MetricGroup, RetrievalMetric, VerificationMetric, retrieval_metrics
from metric_module.miners import All, DistanceWeighted, Semihard
from metric_module.training.schedules import warmup_cosine
from metric_module.training.validation_batches import validation_batches
from tests.helpers.training import Triples, loader, module, trainer


def test_learns_and_logs(tmp_path: Path) -> None:
    model = module(optimizer=partial(torch.optim.AdamW, lr=1e-2))
    fit = trainer(tmp_path, max_epochs=6, log_every_n_steps=1)
    before = fit.validate(model, loader(), verbose=False)[0]
    fit.fit(model, loader(), loader())
    after = {name: value.item() for name, value in fit.callback_metrics.items()}
    assert 0 < after["val/loss"] < before["val/loss"]
    assert before["val/map_at_r"] < after["val/map_at_r"] <= 1
    assert after["train/easy"] + after["train/semihard"] + after["train/hard"] == pytest.approx(1)
    assert 0 < after["train/easy"] < 1
    assert fit.test(model, loader(), verbose=False)[0]["test/map_at_r"] == pytest.approx(after["val/map_at_r"])


def test_figures_are_those_of_the_pure_functions(tmp_path: Path) -> None:
    model = module().eval()
    data = Triples()
    logged = trainer(tmp_path).validate(model, loader(data), verbose=False)[0]
    with torch.no_grad():
        embeddings = torch.cat([model(batch.inputs) for batch in data.batches])
    labels = torch.cat([batch.labels for batch in data.batches])
    expected = retrieval_metrics(embeddings, labels)
    assert 0.1 < expected["map_at_r"] < 0.95
    for name, value in expected.items():
        assert logged[f"val/{name}"] == pytest.approx(value), name
    (rows,) = validation_batches(labels, torch.arange(len(labels)), classes_per_batch=32, samples_per_class=4)
    assert len(rows) == 32, "8 classes x 4 samples"
    assert logged["val/loss"] == pytest.approx(model.criterion(embeddings[rows], labels[rows]).loss.item())


def test_a_plain_loader_of_inputs_and_labels_gives_the_same(tmp_path: Path) -> None:
    data = Triples()
    inputs, labels = (torch.cat([getattr(batch, name) for batch in data.batches]) for name in ("inputs", "labels"))
    plain = DataLoader(TensorDataset(inputs, labels), batch_size=13)
    by_batch = trainer(tmp_path).validate(module(), loader(data), verbose=False)[0]
    by_tuple = trainer(tmp_path).validate(module(), plain, verbose=False)[0]
    assert by_tuple == pytest.approx(by_batch)
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(module(), DataLoader(TensorDataset(inputs, labels), batch_size=16))
    assert fit.callback_metrics["train/loss"] > 0


def test_groups_of_the_data_module_give_cross_group_figures(tmp_path: Path) -> None:
    class Grouped(LightningDataModule):
        groups = torch.arange(128) % 2

        def val_dataloader(self) -> DataLoader[Any]:
            return loader()

    logged = trainer(tmp_path).validate(module(), datamodule=Grouped(), verbose=False)[0]
    assert 0 < logged["val/cross_group_map_at_r"] < 1
    assert logged["val/cross_group_map_at_r"] != logged["val/map_at_r"]


def test_several_loaders_have_their_figures_apart(tmp_path: Path) -> None:
    data, other = Triples(), Triples(noise=2.0, batches=2)
    plain = [
        DataLoader(TensorDataset(*map(torch.cat, zip(*[batch[:2] for batch in one.batches], strict=True))), 13)
        for one in (data, other)
    ]
    alone = [trainer(tmp_path).validate(module(), loader, verbose=False)[0] for loader in plain]
    assert alone[0]["val/queries"] == 128 and alone[1]["val/queries"] == 64
    expected = {
        f"{name}/dataloader_idx_{number}": value for number, one in enumerate(alone) for name, value in one.items()
    }
    assert trainer(tmp_path).validate(module(), plain, verbose=False)[1] == expected
    model, fit = module(), trainer(tmp_path, max_epochs=1)
    fit.fit(model, loader(), plain)
    assert expected.keys() <= fit.callback_metrics.keys()
    (figures,) = fit.validate(model, plain[1], verbose=False)
    assert figures["val/queries"] == 64, "the loaders of the fit are not those of the validation"
    tested = trainer(tmp_path).test(module(), [loader(data), loader(other)], verbose=False)[0]
    assert tested["test/map_at_r/dataloader_idx_1"] == alone[1]["val/map_at_r"]


def test_queries_and_gallery_in_loaders_of_their_own_are_one_task(tmp_path: Path) -> None:
    class Known(LightningDataModule):
        queries = torch.arange(128) < 32
        ids = True

        def val_dataloader(self) -> list[DataLoader[Any]]:
            batches = [batch if self.ids else batch[:2] for batch in Triples().batches]
            return [loader(batches[:1]), loader(batches[1:])]

    (figures, _) = trainer(tmp_path).validate(module(), datamodule=Known(), verbose=False)
    assert figures["val/queries"] == 32
    data = Known()
    data.ids = False
    with pytest.raises(UserError, match=r"\(inputs, labels, index\), as queries and gallery have separate loaders"):
        trainer(tmp_path).validate(module(), datamodule=data, verbose=False)


def lone_samples() -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.randn(12, 5), torch.arange(12)), batch_size=3)


def test_the_sanity_check_has_no_figures(tmp_path: Path) -> None:
    fit = trainer(tmp_path, max_epochs=1, limit_val_batches=2, num_sanity_val_steps=1, check_val_every_n_epoch=2)
    fit.fit(module(), loader(), lone_samples())
    assert not [name for name in fit.callback_metrics if name.startswith("val/")]


@pytest.mark.parametrize("settings", [{"fast_dev_run": True}, {"limit_val_batches": 1}])
def test_figures_that_a_few_samples_do_not_allow_are_named(tmp_path: Path, settings: dict[str, Any]) -> None:
    fit = trainer(tmp_path, **{"max_epochs": 1, "num_sanity_val_steps": 0, **settings})
    left_out = "val: figures are left out: RetrievalMetric: labels: expected a query with another item of its class"
    with pytest.warns(UserWarning, match=left_out):
        fit.fit(module(), loader(), lone_samples())
    assert fit.callback_metrics["val/loss"] == 0 and "val/map_at_r" not in fit.callback_metrics


@pytest.mark.filterwarnings("ignore:.*barebones")
@pytest.mark.parametrize("settings", [{"log_every_n_steps": 0}, {"barebones": True, "logger": None}])
def test_without_logging_it_trains(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = module()
    before = next(model.parameters()).clone()
    kept = {"enable_checkpointing": None, "enable_progress_bar": None, "enable_model_summary": None}
    fit = trainer(tmp_path, **{"max_epochs": 1, **(kept if "barebones" in settings else {}), **settings})
    fit.fit(model, loader(), loader())
    assert not torch.equal(next(model.parameters()), before)
    assert not [name for name in fit.callback_metrics if name.startswith("train/easy")]


def test_the_threshold_of_the_validation_is_kept_and_applied_to_the_test(tmp_path: Path) -> None:
    model = module(metric=VerificationMetric())
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(model, loader(), loader())
    assert model.threshold == fit.callback_metrics["val/best_threshold"]
    assert not [name for name in fit.callback_metrics if "at_threshold" in name]
    fit.save_checkpoint(tmp_path / "a.ckpt")
    other = module(metric=VerificationMetric())
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert saved["threshold"] == model.threshold
    other.load_state_dict(saved["state_dict"])
    other.on_load_checkpoint(saved)
    (figures,) = trainer(tmp_path).test(other, loader(), verbose=False)
    assert figures["test/balanced_accuracy_at_threshold"] == figures["test/balanced_accuracy"], "the same samples"
    other.threshold = 0.0
    (figures,) = trainer(tmp_path).test(other, loader(), verbose=False)
    assert figures["test/tar_at_threshold"] == 0


def test_queries_and_pairs_of_the_data_module_reach_the_metric(tmp_path: Path) -> None:
    class Known(LightningDataModule):
        queries = torch.arange(128) % 2 == 0
        pairs = torch.tensor([[0, 1], [0, 2], [1, 5], [2, 9]])

        def val_dataloader(self) -> DataLoader[Any]:
            return loader()

    model = module(metric=MetricGroup([RetrievalMetric(), VerificationMetric()]))
    (figures,) = trainer(tmp_path).validate(model, datamodule=Known(), verbose=False)
    assert figures["val/same_pairs"] + figures["val/different_pairs"] == 4
    assert figures["val/queries"] + figures["val/queries_without_positive"] == 64


def test_predict_takes_every_form_of_batch(tmp_path: Path) -> None:
    data = Triples()
    model = module()
    full = torch.cat(trainer(tmp_path).predict(model, loader(data)))  # type: ignore[arg-type]
    alone = trainer(tmp_path).predict(model, loader([batch.inputs for batch in data.batches]))
    pairs = trainer(tmp_path).predict(model, loader([(batch.inputs, batch.labels) for batch in data.batches]))
    assert full.shape == (128, 3)
    assert torch.equal(full, torch.cat(alone))  # type: ignore[arg-type]
    assert torch.equal(full, torch.cat(pairs))  # type: ignore[arg-type]


def test_predict_takes_texts(tmp_path: Path) -> None:
    class Length(Encoder):
        embedding_dim = 2

        def forward(self, inputs: list[str]) -> torch.Tensor:
            return torch.tensor([[float(len(text)), 1.0] for text in inputs])

    texts = ["a", "bcd", "ef"]
    for batch in (texts, (texts, torch.tensor([0, 0, 1]))):
        (made,) = trainer(tmp_path).predict(module(Length()), loader([batch]))  # type: ignore[misc]
        assert made[:, 0].tolist() == [1, 3, 2]  # type: ignore[call-overload]


def test_checkpoint_comes_back_with_the_parts_given(tmp_path: Path) -> None:
    model = module()
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(model, loader())
    fit.save_checkpoint(tmp_path / "a.ckpt")
    again = TripletModule.load_from_checkpoint(
        tmp_path / "a.ckpt",
        encoder=MLP(in_features=5, embedding_dim=3, hidden=(8,)),
        criterion=TripletCriterion(Euclidean(), All(), margin=0.3),
    )
    inputs = Triples().batches[0].inputs
    assert torch.equal(again.eval()(inputs), model.eval()(inputs))
    assert again.criterion.step == model.criterion.step == 4
    torch.load(tmp_path / "a.ckpt", weights_only=True)


def test_the_names_of_weights_stay() -> None:
    """Older checkpoints can be loaded only while these names remain."""
    own = {name for name in module().state_dict() if not name.startswith("encoder.")}
    assert own == {"criterion.step"}
    names = set(module(ConvNet(widths=(4, 4), depths=(1, 1))).state_dict()) - own
    layer = ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked")
    stages = {f"encoder.stages.{stage}.{place}.{part}" for stage in (0, 1) for place in (0, 1) for part in layer}
    assert names == stages | {"encoder.pool.power", "encoder.head.linear.weight", "encoder.head.linear.bias"}
    timm = set(module(TimmEncoder("test_resnet", grad_checkpointing=True)).state_dict()) - own
    assert {name.split(".")[1] for name in timm} == {"backbone", "head"} and "encoder.backbone.conv1.0.weight" in timm


def test_census_is_taken_on_logging_steps_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    model = module()
    inner = model.criterion.mine

    def spy(given: Any, census: bool) -> Any:
        taken.append(census)
        return inner(given, census)

    monkeypatch.setattr(model.criterion, "mine", spy)
    trainer(tmp_path, max_epochs=2, log_every_n_steps=3).fit(model, loader())
    assert taken == [True, False, True, False, False, True, False, False]
    taken.clear()
    model.criterion.census = False
    trainer(tmp_path, max_epochs=1, log_every_n_steps=1).fit(model, loader())
    assert taken == [False] * 4


def one_step(optimizer: torch.optim.Optimizer, total_steps: int) -> LRScheduler:
    return warmup_cosine(optimizer, total_steps, warmup_fraction=0.0)


@pytest.mark.parametrize(
    ("scheduler", "last"),
    [(one_step, 0.0), (partial(StepLR, step_size=4, gamma=0.1), 1e-4), (None, 1e-2)],
)
def test_scheduler_steps_with_every_batch_to_the_end_of_training(tmp_path: Path, scheduler: Any, last: float) -> None:
    model = module(optimizer=partial(torch.optim.SGD, lr=1e-2), scheduler=scheduler)
    fit = trainer(tmp_path, max_epochs=2)
    fit.fit(model, loader())
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(last)


def test_several_processes_are_told_what_they_do_not_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = module(MLP(in_features=5, embedding_dim=3, hidden=(8, 4)))
    model.trainer = trainer(tmp_path)
    monkeypatch.setattr(Trainer, "world_size", 2)
    told = r"MLP has BatchNorm in 2 places \(the first: body.1\): its statistics are those of each process's shard"
    with pytest.warns(UserWarning, match=told):
        model.on_fit_start()
    for part in model.encoder.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            part.eval()
    model.on_fit_start()


class Broken(Encoder):
    embedding_dim = 3

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.output = output

    def forward(self, inputs: Tensor) -> Any:
        return self.output(inputs) if callable(self.output) else self.output


def poisoned(inputs: Tensor) -> Tensor:
    result = inputs[:, :3].clone()
    result[5] = math.nan
    return result


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: x, r"Broken: expected output of shape \[B, 3\] \(embedding_dim=3\), got \[32, 5\]"),
        (lambda x: x[:, 0], r"Broken: expected output of shape \[B, 3\] \(embedding_dim=3\), got \[32\]"),
        (lambda x: (x, x), r"Broken: expected output of shape \[B, 3\] \(embedding_dim=3\), got tuple"),
        (lambda x: x[:, :3].long(), r"Broken: expected floating point embeddings, got torch.int64"),
        (lambda x: x[:7, :3], r"Broken: expected one embedding per label, got 7 for 32 labels"),
        (poisoned, r"Broken: NaN or infinity in 1 of 32 embeddings at step 0, sample ids \[5\]; look at these inputs"),
    ],
)
def test_a_broken_encoder_is_named(tmp_path: Path, output: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        trainer(tmp_path).fit(module(Broken(output)), loader())


def test_an_encoder_without_a_size_is_named(tmp_path: Path) -> None:
    class Sizeless(Encoder):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(5, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            made: Tensor = self.layer(inputs)
            return made

    with pytest.raises(UserError, match="Sizeless: expected an attribute embedding_dim; set embedding_dim = 3 in"):
        trainer(tmp_path).fit(module(Sizeless()), loader())


@pytest.mark.parametrize("miner", [DistanceWeighted(), All()])
def test_a_divergence_is_named(tmp_path: Path, miner: Any) -> None:
    torch.manual_seed(0)  # with one in fifteen, some embeddings of the step are still finite
    model = module(MLP(5, 3, hidden=(8,)), miner, optimizer=partial(torch.optim.AdamW, lr=1e15))
    with pytest.raises(UserError, match=r"embeddings at step .*; training has diverged: lower the learning rate"):
        trainer(tmp_path, max_epochs=20).fit(model, loader())


def test_without_the_refusal_of_nan_the_weights_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module's check of embeddings and the criterion's check of distances are the only ones of a step."""
    monkeypatch.setattr(TripletModule, "_refuse", lambda *arguments: None)
    monkeypatch.setattr("metric_module.criterion.triplet.check_loss_is_finite", lambda *arguments: None)
    batch = Triples().batches[0]
    spoiled = [batch._replace(inputs=batch.inputs.index_fill(0, torch.tensor([3]), math.nan))]
    model = module()
    trainer(tmp_path).fit(model, loader(spoiled))
    assert not any(bool(value.isfinite().all()) for value in model.encoder.parameters())


GOOD = Triples().batches[0]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (GOOD.inputs, r"batch: expected \(inputs, labels\) or \(inputs, labels, index\), got Tensor"),
        ((GOOD.inputs, GOOD.labels[:, None]), r"labels: expected a tensor of shape \[32\].* got \(32, 1\)"),
        (
            (GOOD.inputs, ("a", "b")),
            r"labels: expected a tensor of integers, got list of str; let the data set give",
        ),
        (
            (GOOD.inputs.double(), GOOD.labels),
            r"MLP: expected inputs of torch.float32, .*, got torch.float64; let",
        ),
        ((GOOD.inputs, GOOD.labels.float()), r"labels: expected integers, got torch.float32"),
        ((GOOD.inputs, GOOD.labels[:9]), r"MLP: expected one embedding per label, got 32 for 9 labels"),
        ((GOOD.inputs, GOOD.labels, GOOD.index[:9]), r"index: expected a tensor of shape \[32\].* got \(9,\)"),
        (
            (GOOD.inputs * math.nan, GOOD.labels),
            r"MLP: NaN or infinity in 32 of 32 embeddings at step 0, sample ids \[0",
        ),
    ],
)
def test_a_bad_batch_is_named(tmp_path: Path, batch: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        trainer(tmp_path).fit(module(), loader([batch]))


def test_every_lightning_hook_it_overrides_fires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = [
        "on_fit_start",
        "on_train_start",
        "on_train_epoch_start",
        "training_step",
        "validation_step",
        "test_step",
        "predict_step",
        "on_validation_epoch_start",
        "on_validation_epoch_end",
        "on_test_epoch_start",
        "on_test_epoch_end",
        "configure_optimizers",
        "on_save_checkpoint",
        "on_load_checkpoint",
    ]
    own = vars(TripletModule) | vars(EmbeddingModule)
    overridden = {name for name in own if hasattr(LightningModule, name)}
    assert set(hooks) == {name for name in overridden if not name.startswith("_")} - {"forward"}
    fired: set[str] = set()

    def watch(name: str) -> None:
        inner = getattr(TripletModule, name)

        def run(self: TripletModule, *arguments: Any, **options: Any) -> Any:
            fired.add(name)
            return inner(self, *arguments, **options)

        monkeypatch.setattr(TripletModule, name, run)

    for name in hooks:
        watch(name)
    fit, model = trainer(tmp_path, max_epochs=1), module()
    fit.fit(model, loader(), loader())
    fit.test(model, loader(), verbose=False)
    fit.predict(model, loader())
    fit.save_checkpoint(tmp_path / "a.ckpt")
    trainer(tmp_path, max_epochs=2).fit(model, loader(), loader(), ckpt_path=str(tmp_path / "a.ckpt"))
    assert fired == set(hooks)


def test_an_epoch_without_any_triplet_trains_on(tmp_path: Path) -> None:
    lone = [Batch(torch.randn(4, 5), torch.arange(4), torch.arange(4))] * 3
    model = TripletModule(MLP(5, 3, hidden=()), TripletCriterion(Euclidean(), Semihard()))
    fit = trainer(tmp_path, max_epochs=1, log_every_n_steps=1)
    with pytest.warns(UserWarning, match="no sample of the first batch has both a positive and a negative"):
        fit.fit(model, loader(lone))
    assert fit.callback_metrics["train/loss"] == 0
    assert fit.callback_metrics["train/hard"] == 0
