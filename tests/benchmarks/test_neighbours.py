"""The table of class neighbourhoods, and runs that are not repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.neighbours import RECIPES, Run, measure_all, table
from datamodules.sampling.neighbourhoods import complete
from tests.conf.test_conf import composed


def row(data: str, group: int, share: float, seed: int, figure: float) -> dict[str, Any]:
    spent = 2.0 if group else 0.0
    run = Run(data, group, share, 50, 224, seed)._asdict()
    return run | {"map_at_r": figure, "recall_at_1": figure / 2, "tables": 5, "spent": spent, "seconds": 40.0}


def test_a_line_for_each_setting() -> None:
    rows = [row("glyphs", 4, 0.5, 1, 0.5), row("emoji", 0, 1.0, 1, 0.2), row("emoji", 0, 1.0, 2, 0.4)]
    assert table(rows).splitlines()[2:] == [
        "| `emoji` | 224 | off |  | 0.300 (0.200) | 0.150 (0.100) |  | 2 |",
        "| `glyphs` | 224 | 4 | 0.5 | 0.500 (0.000) | 0.250 (0.000) | 5.0% | 1 |",
    ]


def test_a_run_with_a_line_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Run] = []

    def measure(run: Run, fonts: str, read: dict[str, Any]) -> dict[str, Any]:
        measured.append(run)
        return row(run.data, run.group, run.share, run.seed, figure=0.25)

    monkeypatch.setattr(Run, "measure", measure)
    runs, path = [Run("emoji", 0, 1.0, 50, 224, 1), Run("emoji", 4, 1.0, 50, 224, 1)], tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row("emoji", 0, 1.0, 1, figure=0.5)) + "\n")
    for _ in range(2):
        assert [found["map_at_r"] for found in measure_all(runs, path, "")] == [0.5, 0.25]
    assert measured == [runs[1]]


@pytest.mark.parametrize("data", RECIPES)
def test_overrides_compose(data: str, tmp_path: Path) -> None:
    cfg = composed(tmp_path, *Run(data, 4, 0.5, 50, 300, 7).overrides("fonts"))
    assert complete(dict(cfg.datamodule.neighbours)) == {"group": 4, "share": 0.5, "every": 50}
    assert cfg.seed == 7 and cfg.trainer.max_steps == cfg.trainer.val_check_interval == 300
    assert composed(tmp_path, *Run(data, 0, 1.0, 0, 300, 7).overrides("fonts")).datamodule.neighbours is None
