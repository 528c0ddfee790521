"""CollapseGuard: detection of collapse without false alarms, and counts of empty steps and lone anchors."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch import Callback
from torch import Tensor, nn

from metric_module import Encoder, TripletCriterion, TripletModule, UserError
from metric_module.callbacks import CollapseGuard
from metric_module.distances import Cosine, Euclidean, SquaredEuclidean
from metric_module.functional import unit
from metric_module.miners import All, BatchHard, DistanceWeighted, Hard, Semihard
from tests.helpers.clouds import run
from tests.helpers.training import Triples, loader, module, trainer


class Collapse(Callback):
    """A callback that makes all embeddings equal from a given step, up to a little noise."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, model: Any, *arguments: Any) -> None:
        if trainer.global_step >= self.step:
            with torch.no_grad():
                last = [layer for layer in model.encoder.modules() if isinstance(layer, nn.Linear)][-1]
                last.weight.mul_(1e-4)
                last.bias.fill_(1.0)


class Small(Encoder):
    embedding_dim = 3

    def __init__(self, normalize: bool = True, scale: float = 1.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3))
        self.normalize = normalize
        self.scale = scale

    def forward(self, inputs: Tensor) -> Tensor:
        embeddings: Tensor = self.scale * self.layers(inputs)
        return unit(embeddings) if self.normalize else embeddings


def fit(folder: Path, model: TripletModule, *callbacks: Callback, epochs: int = 20, data: Any = None) -> Trainer:
    made = trainer(folder, max_epochs=epochs, callbacks=list(callbacks))
    made.fit(model, loader(data))
    return made


@pytest.mark.parametrize("reduction", ["mean_active", "mean", "sum"])
@pytest.mark.parametrize("loss", ["hinge", "soft"])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_planted_collapse(tmp_path: Path, loss: str, reduction: str, normalize: bool) -> None:
    criterion = TripletCriterion(Euclidean(), All(), 0.3, loss, reduction)
    model = TripletModule(Small(normalize), criterion, optimizer=partial(torch.optim.SGD, lr=1e-4))
    told = r"embeddings have collapsed by step (\d+): spread .* \(it was .*\), loss .* at margin 0.3; hard negatives"
    with pytest.raises(UserError, match=told) as stop:
        fit(tmp_path, model, Collapse(10), CollapseGuard(action="stop"))
    assert 20 <= int(str(stop.value).split("step ")[1].split(":")[0]) <= 60


@pytest.mark.parametrize("loss", ["hinge", "soft"])
def test_hard_mining_that_collapses_by_itself(tmp_path: Path, loss: str) -> None:
    """With random labels and the hardest negatives, the lowest loss is that of equal embeddings."""
    torch.manual_seed(0)
    data = Triples(noise=5.0, batches=4)
    shuffled = [batch._replace(labels=batch.labels[torch.randperm(32)]) for batch in data.batches]
    criterion = TripletCriterion(SquaredEuclidean(), BatchHard(), 0.3, loss)
    model = TripletModule(Small(normalize=False), criterion, optimizer=partial(torch.optim.AdamW, lr=0.03))
    with pytest.raises(UserError, match="embeddings have collapsed"):
        fit(tmp_path, model, CollapseGuard(action="stop"), epochs=60, data=shuffled)


@pytest.mark.parametrize(
    ("miner", "distance", "loss", "encoder"),
    [
        (All, Euclidean, "hinge", Small()),
        (Semihard, Cosine, "hinge", Small()),
        (BatchHard, Euclidean, "soft", Small(normalize=False)),
        (DistanceWeighted, Euclidean, "hinge", Small()),
        (Semihard, SquaredEuclidean, "soft", Small(normalize=False, scale=1e-3)),
        (All, Euclidean, "hinge", Small(normalize=False, scale=1e-2)),
    ],
)
def test_no_false_alarm(tmp_path: Path, miner: Any, distance: Any, loss: str, encoder: Encoder) -> None:
    torch.manual_seed(0)
    criterion = TripletCriterion(distance(), miner(), 0.3, loss)
    model = TripletModule(encoder, criterion, optimizer=partial(torch.optim.AdamW, lr=0.01))
    guard = CollapseGuard(action="stop")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no triplet had a loss")  # all is learned
        fit(tmp_path, model, guard, epochs=40)
    assert guard.state_dict()["steps"] == 160
    assert not guard.state_dict()["collapsed"]


def test_it_warns_once_and_goes_on(tmp_path: Path) -> None:
    model = module(Small(), All(), optimizer=partial(torch.optim.SGD, lr=1e-4))
    with pytest.warns(UserWarning, match="embeddings have collapsed") as told:
        made = fit(tmp_path, model, Collapse(10), CollapseGuard())
    assert made.global_step == 80
    assert sum("collapsed" in str(warning.message) for warning in told) == 1


def test_it_switches_the_miner_and_stays_with_it(tmp_path: Path) -> None:
    model = module(Small(), Hard(), optimizer=partial(torch.optim.SGD, lr=1e-4))
    guard = CollapseGuard(action="switch", fallback=Semihard())
    with pytest.warns(UserWarning, match="from now on Semihard mines"):
        fit(tmp_path, model, Collapse(10), guard, epochs=6)
    assert isinstance(model.criterion.current_miner, Semihard)
    assert isinstance(model.criterion.miner, Hard)
    other = module(Small(), Hard())
    again = CollapseGuard(action="switch", fallback=Semihard())
    again.load_state_dict(guard.state_dict())
    fit(tmp_path, other, again, epochs=1)
    assert isinstance(other.criterion.current_miner, Semihard)


def test_steps_without_an_active_triplet_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = module(Small(), Semihard(), optimizer=partial(torch.optim.SGD, lr=0.0))
    model.criterion.margin = 1e-9
    with pytest.warns(UserWarning, match=r"no triplet had a loss in the last 50 steps \(to step 50\)"):
        made = fit(tmp_path, model, CollapseGuard())
    assert "80 of 80 steps had no triplet with a loss, and left the weights as they were" in caplog.text
    assert made.callback_metrics["train/empty_steps"] == 80


def test_lone_anchors_are_counted(tmp_path: Path) -> None:
    data = [batch._replace(labels=torch.cat([batch.labels[:8], torch.arange(100, 124)])) for batch in Triples().batches]
    model = module(Small())
    with pytest.warns(UserWarning, match="75% of the anchors of this epoch had no positive or no negative"):
        made = fit(tmp_path, model, CollapseGuard(), epochs=1, data=data)
    assert made.callback_metrics["train/lone_anchors"] == pytest.approx(0.75)


def test_a_healthy_run_says_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "embeddings have|no triplet|.* of the anchors|.* steps had no")
        run(tmp_path, CollapseGuard())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"action": "pray"}, "collapse_guard.action: expected warn, stop or switch, got 'pray'"),
        ({"action": "switch"}, "collapse_guard.fallback: expected a miner if and only if action=switch"),
        ({"fallback": Semihard()}, "collapse_guard.fallback: expected a miner if and only if action=switch"),
        ({"patience": 0}, "collapse_guard.patience: expected an integer >= 1, got 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        CollapseGuard(**arguments)


def test_without_the_guard_no_one_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CollapseGuard, "_looks_collapsed", lambda *arguments: False)
    model = module(Small(), All(), optimizer=partial(torch.optim.SGD, lr=1e-4))
    made = fit(tmp_path, model, Collapse(10), CollapseGuard(action="stop"))
    assert made.global_step == 80


@pytest.mark.parametrize("margin", [0.3, 1e-9])
def test_without_it_empty_steps_and_lone_anchors_are_silent(tmp_path: Path, margin: float) -> None:
    model = module(Small(), Semihard(), optimizer=partial(torch.optim.SGD, lr=0.0))
    model.criterion.margin = margin
    alone = [batch._replace(labels=torch.arange(32)) for batch in Triples().batches]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        made = fit(tmp_path, model, epochs=20, data=alone if margin == 0.3 else None)
    assert made.global_step == 80
    assert not [one for one in told if "triplet" in str(one.message) or "anchors" in str(one.message)]
    assert "train/lone_anchors" not in made.callback_metrics
