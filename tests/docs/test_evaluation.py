"""Code and commands of docs/evaluation.md, run as they stand, and every figure that it names exists."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from metric_module.evaluation import FewShotMetric, IdentificationMetric, RetrievalMetric, VerificationMetric
from tests.cli.test_run import QUICK
from tests.helpers.command_line import command_in

TEXT = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_functions() -> None:
    torch.manual_seed(0)
    scope: dict[str, dict[str, float]] = {}
    exec(BLOCKS[0], scope)
    assert {"map_at_r", "tar_at_far_1e-2", "accuracy_5_way_1_shot_interval"} <= scope["figures"].keys()


def test_every_figure_that_is_named_is_one() -> None:
    x, labels = torch.randn(48, 3), torch.arange(48) // 6
    made: set[str] = {"accuracy_10_fold", "nmi", "ami", "best_step"}
    retrieval = RetrievalMetric(rerank=["k_reciprocal", "query_expansion"])
    for metric in (retrieval, VerificationMetric(), FewShotMetric(), IdentificationMetric()):
        metric.threshold = 0.5
        metric.update(x, labels, torch.arange(48), torch.arange(48) % 3)
        made |= metric.compute().keys()
    named = {
        name.removeprefix("test/").removeprefix("val/") for name in re.findall(r"`((?:\w+/)?[a-z]+_[a-z0-9_-]+)`", TEXT)
    }
    assert {
        name for name in named if name.startswith(("tar_", "far_at", "best", "balanced", "accuracy", "map", "r_p"))
    } <= made
    of_identification = {name for name in named if name.startswith(("dir_at_far_1", "identification_rate", "known_"))}
    assert len(of_identification) == 3
    assert of_identification <= {*made, *(IdentificationMetric().figure_names())}


def test_a_metric_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_metrics.py").write_text(BLOCKS[1])
    (line,) = re.findall(r"```bash\n(.*?)\n```", TEXT, re.DOTALL)
    command = command_in(tmp_path, monkeypatch)
    assert command(*shlex.split(line)[2:], *QUICK, "trainer.max_steps=2", "hydra.run.dir=run") == 0
    assert json.loads((tmp_path / "run/metrics.json").read_text())["val"]["spread"] > 0
