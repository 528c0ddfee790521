"""Training and evaluation on a device without float64: the results equal those on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from datamodules.augmentation.pixels import Augment
from metric_module import Encoder, TripletCriterion, TripletModule
from metric_module.callbacks.before_training import measure_separation
from metric_module.criterion.examples import named_triplets
from metric_module.criterion.inputs import MiningInput
from metric_module.distances import Distance, Euclidean
from metric_module.encoders import ConvNet
from metric_module.evaluation import RetrievalMetric, VerificationMetric
from metric_module.functional import unit
from metric_module.keyed_random import keyed_uniform
from metric_module.miners import All, BatchHard, DistanceWeighted, Miner, Random, Scheduled, Semihard, SemihardNearest
from metric_module.training.memory import CrossBatchMemory
from tests.helpers.no_float64 import DEVICE, device_without_float64

MINERS = [All(), Semihard(), BatchHard(), SemihardNearest(), DistanceWeighted(), Random()]


class Scaled(Distance):
    """Euclidean distance with a learned factor on each coordinate."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 6))

    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        distances: Tensor = Euclidean()(query * self.scale, reference * self.scale)
        return distances


def batch() -> tuple[Tensor, Tensor]:
    """Unit vectors ``(24, 6)`` of 6 classes."""
    return unit(torch.randn(24, 6, generator=torch.Generator().manual_seed(0))), torch.arange(24) % 6


@pytest.mark.parametrize("miner", MINERS, ids=lambda miner: type(miner).__name__)
@pytest.mark.parametrize("loss", ["hinge", "soft"])
def test_the_criterion_gives_the_values_of_the_cpu(miner: Miner, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = batch()
    criterion = TripletCriterion(Euclidean(), miner, margin=0.4, loss=loss)
    at_home = embeddings.clone().requires_grad_()
    expected = copy.deepcopy(criterion)(at_home, labels)
    expected.loss.backward()
    assert expected.loss > 0 and expected.census.active > 0
    with device_without_float64(monkeypatch) as move:
        moved = move(embeddings).requires_grad_()
        found = move(criterion)(moved, move(labels))
        found.loss.backward()
        assert {part.device for part in (found.loss, moved.grad, *found.census)} == {DEVICE}
        assert torch.equal(found.loss.cpu(), expected.loss)
        assert at_home.grad is not None and torch.equal(moved.grad.cpu(), at_home.grad)
        assert [float(part) for part in found.census] == pytest.approx([float(part) for part in expected.census])


def test_the_parameters_of_a_distance_get_their_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = batch()
    at_home, away = Scaled(), Scaled()
    TripletCriterion(at_home, All(), margin=0.2)(embeddings, labels).loss.backward()
    assert at_home.scale.grad is not None and at_home.scale.grad.abs().max() > 0
    with device_without_float64(monkeypatch) as move:
        TripletCriterion(move(away), All(), margin=0.2)(move(embeddings), move(labels)).loss.backward()
        assert away.scale.grad is not None and away.scale.grad.device == DEVICE
        assert torch.equal(away.scale.grad.cpu(), at_home.scale.grad)


def test_a_step_with_memory_census_and_signs_of_health(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels = torch.randn(8, 3, 16, 16), torch.arange(8) % 4

    def steps(module: TripletModule, inputs: Tensor, labels: Tensor) -> list[float]:
        """Losses of two steps with an optimizer."""
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        found = []
        for _ in range(2):
            output = module.mine((inputs, labels), census=True)
            optimizer.zero_grad()
            output.loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            assert module.health is not None and module.health.spread > 0
            found.append(output.loss.item())
        return found

    def made() -> TripletModule:
        torch.manual_seed(0)
        encoder: Encoder = ConvNet(embedding_dim=8)
        miner = Scheduled({"first": Semihard(), "then": DistanceWeighted()}, [0, 1])
        return TripletModule(encoder, TripletCriterion(Euclidean(), miner, margin=0.4), memory=CrossBatchMemory(8, 8))

    expected = steps(made(), inputs, labels)
    assert expected[0] > 0 and expected[0] != expected[1]
    monkeypatch.setattr(TripletModule, "_refuse", lambda *arguments: None)  # the stand-in makes no tensors from lists
    with device_without_float64(monkeypatch) as move:
        assert steps(move(made()), move(inputs), move(labels)) == pytest.approx(expected, rel=1e-6)


def test_evaluation_and_what_the_report_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = batch()
    ids = torch.arange(len(labels))
    criterion = TripletCriterion(Scaled(), DistanceWeighted(), margin=0.4)
    metrics = [RetrievalMetric(), RetrievalMetric(distance=Scaled()), VerificationMetric()]
    expected = []
    for metric in metrics:
        metric.update(embeddings, labels, ids)
        expected.append(metric.compute())
        metric.reset()
    separation = measure_separation(embeddings, labels, 0.4, Scaled())
    criterion.miner = Semihard()
    named = named_triplets(criterion, MiningInput(embeddings, labels))
    assert len(named.anchor) > 0 and separation is not None
    with device_without_float64(monkeypatch) as move:
        embeddings, labels, ids = move(embeddings), move(labels), move(ids)
        for metric, figures in zip(metrics, expected, strict=True):
            if metric.distance is not None:
                move(metric.distance)
            metric.update(embeddings, labels, ids)
            assert metric.compute() == figures
        found = measure_separation(embeddings, labels, 0.4, move(Scaled()))
        assert found is not None and torch.equal(found.positive, separation.positive)
        assert torch.equal(named_triplets(move(criterion), MiningInput(embeddings, labels)).negative, named.negative)


def test_draws_and_augmentation(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, images = torch.arange(4), torch.rand(4, 3, 8, 8)
    draws, augmented = keyed_uniform(keys, 3), Augment()(images, keys)
    assert draws.dtype == torch.float64
    with device_without_float64(monkeypatch) as move:
        found = keyed_uniform(move(keys), 3)
        assert found.dtype == torch.float32 and torch.equal(found.cpu(), draws.float())
        assert torch.equal(Augment()(move(images), move(keys)).cpu(), augmented)


def test_the_device_refuses_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above are valid only if the stand-in rejects float64."""
    with device_without_float64(monkeypatch) as move:
        values = move(torch.rand(3))
        with pytest.raises(TypeError, match="does not support"):
            values.double()
        with pytest.raises(TypeError, match="does not support"):
            values.sum(dtype=torch.float64)
        with pytest.raises(RuntimeError, match="same device"):
            values + torch.rand(3)
