"""Code and commands of docs/extending.md, run as they stand: its classes, its yamls, its tests and its commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metric_module import TripletCriterion, TripletModule
from metric_module.config import conf_folder
from metric_module.evaluation import retrieval_metrics
from metric_module.miners import All, EasyPositive, Semihard
from tests.cli.test_run import MLP, QUICK
from tests.helpers.command_line import command_in
from tests.helpers.pages import modules_of, page, written

TEXT, FILES, COMMANDS = page("extending.md")
MODULES = modules_of(FILES)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the page, in a folder from which they can be imported."""
    with written(FILES, tmp_path, monkeypatch) as made:
        yield made


def mahalanobis(columns: int, rank: int | None = None) -> Any:
    """The distance of the page, in float64."""
    return import_module("my_distances").Mahalanobis(columns, rank).double()


def test_every_block_has_a_name() -> None:
    assert len(FILES) == TEXT.count("```python") + TEXT.count("```yaml") == 16
    assert len(COMMANDS) == 5


def test_every_key_that_the_groups_refer_to_is_named() -> None:
    """By yamls of groups, outside Hydra's own; ``..key`` stays in its group."""
    groups = [path for path in conf_folder().glob("*/*.yaml") if path.parent.name not in {"hydra", "experiment"}]
    found = {key for path in groups for key in re.findall(r"\$\{(\w[\w.]*)\}", path.read_text(encoding="utf-8"))}
    table = TEXT.partition("| key | needed by |")[2].partition("\n\n")[0]
    assert {"margin", "seed", "output_dir", "optimizer.lr"} < found
    assert found == set(re.findall(r"`([\w.]+)`", " ".join(re.findall(r"^\|([^|]+)\|", table, re.MULTILINE))))


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("test_")])
def test_its_tests_pass(name: str, folder: Path) -> None:
    torch.manual_seed(0)
    tests = [value for key, value in vars(import_module(name)).items() if key.startswith("test_")]
    assert tests
    for test in tests:
        test()


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_run(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python, script, *words = shlex.split(line)
    assert (python, script) == ("python", "run.py")
    small = [] if {"encoder=tiny", "encoder=mlp"} & set(words) else MLP
    few = ["datamodule.classes_per_batch=4"]  # ten digits have six classes for training
    assert command_in(folder, monkeypatch)(*words, *small, "trainer.fast_dev_run=true", *QUICK, *few) == 0


def test_by_hand(folder: Path) -> None:
    module = import_module("by_hand").module
    assert isinstance(module, TripletModule)
    assert "criterion.distance.factor" in dict(module.named_parameters()), "the optimizer gets L"


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("miner", [All, Semihard, EasyPositive])
def test_the_gradient_of_the_learned_distance(folder: Path, miner: type, rank: int | None) -> None:
    generator = torch.Generator().manual_seed(4)
    rows, labels = torch.randn(12, 4, generator=generator, dtype=torch.float64), torch.arange(12) % 4
    distance = mahalanobis(4, rank)
    start = distance.factor.detach() + 0.3 * torch.randn(distance.factor.shape, generator=generator)
    criterion = TripletCriterion(distance, miner(), 0.5, "soft")

    def loss(factor: Tensor) -> Tensor:
        distance.factor.data = factor
        value: Tensor = criterion(rows, labels).loss
        return value

    torch.autograd.backward(loss(start.clone()))
    numeric = torch.zeros_like(start)
    for index in range(start.numel()):
        step = torch.zeros_like(start)
        step.view(-1)[index] = 1e-6
        numeric.view(-1)[index] = (loss(start + step) - loss(start - step)).detach() / 2e-6
    assert numeric.abs().min() > 1e-4
    torch.testing.assert_close(distance.factor.grad, numeric, rtol=1e-6, atol=1e-8)


def test_the_learned_distance_finds_what_tells_classes_apart(folder: Path) -> None:
    """Two coordinates carry the class, six are noise three times as large; nothing but L is trained."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 12
    angle = labels * torch.pi / 6
    signal = torch.stack([angle.cos(), angle.sin()], dim=1) + 0.05 * torch.randn(240, 2, generator=generator)
    rows = torch.cat([signal, 3 * torch.randn(240, 6, generator=generator)], dim=1).double()
    train, test = labels < 8, labels >= 8
    distance = mahalanobis(8)
    criterion = TripletCriterion(distance, Semihard(), margin=0.5)
    optimizer = torch.optim.AdamW(criterion.parameters(), lr=0.03)
    before = retrieval_metrics(rows[test], labels[test], distance=distance)["recall_at_1"]
    for _ in range(150):
        optimizer.zero_grad()
        torch.autograd.backward(criterion(rows[train], labels[train]).loss)
        optimizer.step()
    weight = distance.factor.detach().norm(dim=0)
    assert before < 0.5
    assert retrieval_metrics(rows[test], labels[test], distance=distance)["recall_at_1"] > 0.95
    assert weight[:2].min() > 5 * weight[2:].max()
