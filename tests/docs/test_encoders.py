"""Code and commands of docs/encoders.md, run as they stand with a small model; every name in it exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from metric_module.config import conf_folder
from tests.cli.test_run import MLP, QUICK
from tests.helpers.command_line import command_in

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
SMALL = {
    "encoder.name=resnet18": "encoder.name=test_resnet",
    "encoder.name=convnext_atto": "encoder.name=test_convnext",
}


def test_every_encoder_is_named() -> None:
    table = TEXT.partition("| `encoder=` |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == {
        path.stem for path in (conf_folder() / "encoder").glob("*.yaml")
    }


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on the loader
def test_the_python_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    scope: dict[str, Any] = {}
    exec(source, scope)
    inputs = {"values": scope["values"][:, None], "lengths": scope["lengths"]}
    with torch.no_grad():
        assert torch.equal(scope["again"](inputs), scope["encoder"](inputs))
        assert (scope["again"](inputs)[0] - scope["again"](inputs)[1]).norm() > 1e-2


def by_default(block: str) -> bool:
    """The blocks that run in every test run: the one whose commands use files of each other."""
    return block.count("\n") > 1


@pytest.mark.parametrize(
    "block", [pytest.param(block, marks=[] if by_default(block) else pytest.mark.slow) for block in BLOCKS]
)
def test_its_commands_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = command_in(tmp_path, monkeypatch)
    for line in block.splitlines():
        python, script, *words = shlex.split(line)
        assert (python, script) == ("python", "run.py")
        small = [SMALL.get(word, word) for word in words]
        small += [] if "encoder=timm" in words else MLP
        assert command(*small, *QUICK, "trainer.max_steps=2", "report=false", "logger=csv") == 0
    assert len(list(tmp_path.rglob("encoder.safetensors"))) == sum("task=" not in line for line in block.splitlines())
