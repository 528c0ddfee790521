"""A finished run with invented figures, for tests of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from metric_module.callbacks.before_training import measure_separation
from metric_module.distances import Euclidean
from metric_module.evaluation.retrieval import retrieval_per_query
from metric_module.report.contents import Run
from metric_module.report.samples.neighbours import Items

MARGIN = 0.3
EVIL = "<script>window.hacked = 1</script>"


def items(classes: int = 6, each: int = 5, spread: float = 0.7, seed: int = 0) -> Items:
    """Clouds whose ids are the row numbers plus 100."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(each)
    centres = torch.randn(classes, 4, generator=generator)
    points = centres[labels] + spread * torch.randn(len(labels), 4, generator=generator)
    rows = torch.arange(len(labels))
    return Items(torch.nn.functional.normalize(points, dim=1), labels, rows + 100, rows)


def show(ids: Sequence[int]) -> list[Image.Image | str]:
    """Each sample a square of its own colour."""
    return [Image.new("RGB", (80, 80), (id % 256, 90, 255 - id % 256)) for id in ids]


def name(ids: Sequence[int]) -> list[str]:
    return [f"animal {(id - 100) // 5}" if id >= 100 else "in training" for id in ids]


def mined() -> dict[str, dict[str, Any]]:
    kept = {
        "margin": MARGIN,
        "miner": "Semihard",
        "ids": torch.tensor([[1, 2, 7], [3, 4, 8]]),
        "distances": torch.tensor([[0.5, 0.7], [0.6, 0.4]]),
    }
    return {phase: {"step": step, "steps": 9, **kept} for phase, step in (("start", 0), ("middle", 4), ("end", 8))}


def csv(folder: Path) -> Path:
    path = folder / "metrics.csv"
    lines = ["step,epoch,train/easy,train/hard,train/loss,train/semihard,val/loss,val/map_at_r"]
    lines += [f"{step},0,{0.1 * step:.1f},0.1,{1 / (1 + step):.3f},{0.9 - 0.1 * step:.1f},," for step in range(9)]
    lines += ["8,0,,,,,0.4,0.6", "9,1,,,,,0.3,0.7"]
    path.write_text("\n".join(lines) + "\n")
    return path


def made_up(folder: Path, **changes: Any) -> Run:
    """Make a finished run with figures, items and mined triplets; ``changes`` replace its fields."""
    samples = changes.pop("items", items())
    figures = {"val": {"recall_at_1": 0.7, "queries": 30.0}, "test": {"recall_at_1": 0.6, "map_at_r": 0.5, "loss": 0.2}}
    earlier = items(spread=3, seed=1)
    before = measure_separation(earlier.embeddings, earlier.labels, MARGIN, Euclidean())
    after = measure_separation(samples.embeddings, samples.labels, MARGIN, Euclidean())
    run = Run(
        title="train today",
        stage="test",
        figures=figures,
        items=samples,
        queries=retrieval_per_query(samples.embeddings, samples.labels, samples.ids),
        margin=MARGIN,
        distance=Euclidean(),
        trained_on=0,
        show=show,
        name=name,
        metrics=csv(folder),
        steps=9,
        before=before,
        after=after,
        samples=len(samples.ids),
        mined=mined(),
        config="margin: 0.3\n",
        versions={"torch": "2.14"},
    )
    return run._replace(**changes)
