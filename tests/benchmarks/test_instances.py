"""Both criteria part the same pixels, by a distance that was chosen on val."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import instances
from datamodules import EmojiScenesDataModule

SMALL = {"scenes": (8, 2, 3), "image_size": 48}
QUICK = ["datamodule.scenes=[8,2,3]", "datamodule.image_size=48", "trainer.max_steps=2", "trainer.accelerator=cpu"]


@pytest.mark.integration
def test_both_criteria_are_trained_on_the_recipe() -> None:
    data = EmojiScenesDataModule(**SMALL)  # type: ignore[arg-type]
    found = [instances.trained(data, 1, peer, QUICK) for peer in (False, True)]
    assert found[0] != found[1]
    assert all(0 < figure < 0.6 for figures in found for figure in figures)


def test_the_threshold_comes_from_val(monkeypatch: pytest.MonkeyPatch) -> None:
    data, asked = EmojiScenesDataModule(**SMALL), []  # type: ignore[arg-type]

    def metrics(*samples: Any, threshold: float | None, **options: Any) -> dict[str, float]:
        asked.append((len(samples[0]), threshold))
        return {"ari": 0.25 * len(asked)} | ({"best_threshold": 0.375} if threshold is None else {})

    monkeypatch.setattr(instances, "instance_metrics", metrics)
    sizes = [len(data.samples.splits[split]) for split in ("val", "test")]
    assert instances.figures(data, lambda ids: torch.zeros(len(ids), 1)) == (0.25, 0.5, 0.375)
    assert asked == [(sizes[0], None), (sizes[1], 0.375)]
