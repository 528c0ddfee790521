"""Labels are checked once in a step; embeddings are scanned only for a memory, or if the loss is not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from metric_module import PairBatch, TripletCriterion, TripletModule
from metric_module.callbacks import MinedTriplets
from metric_module.distances import Euclidean
from metric_module.encoders import MLP
from metric_module.miners import All
from metric_module.training.memory import CrossBatchMemory
from tests.helpers.check_counts import counted
from tests.helpers.training import Triples, loader, trainer


def module(**settings: Any) -> TripletModule:
    return TripletModule(MLP(5, 3, hidden=()), TripletCriterion(Euclidean(), All(), margin=0.3), **settings)


SAMPLES = Triples().batches[0]
PAIRS = PairBatch(torch.randn(4, 5), torch.randn(6, 5), torch.eye(4, 6, dtype=torch.bool), torch.arange(4))


@pytest.mark.parametrize(
    ("batch", "settings", "expected"),
    [
        (SAMPLES, {}, {"labels": 1, "index": 1}),
        ((SAMPLES.inputs, SAMPLES.labels), {}, {"labels": 1}),
        (SAMPLES, {"memory": CrossBatchMemory(16, 3)}, {"labels": 1, "index": 1, "scan of 32 rows": 1}),
        (PAIRS, {}, {"index": 1}),
        (PAIRS, {"both_ways": True}, {"index": 1}),
    ],
)
def test_a_training_step_checks_once(
    batch: Any, settings: dict[str, Any], expected: dict[str, int], tmp_path: Path
) -> None:
    with counted() as counts:
        trainer(tmp_path, max_epochs=1, callbacks=[MinedTriplets()]).fit(module(**settings), loader([batch]))
    assert counts == expected


def test_a_criterion_by_itself_checks() -> None:
    with counted() as counts:
        module().criterion(torch.randn(4, 3), torch.arange(4) // 2, torch.randn(6, 3), torch.arange(6) // 2)
    assert counts == {"labels": 1, "reference_labels": 1}
