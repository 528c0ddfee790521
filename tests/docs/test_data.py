"""Code and commands of docs/data.md, run as they stand."""

from __future__ import annotations

import re
import runpy
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from datamodules import PKDataModule
from tests.cli.test_run import MLP, QUICK
from tests.helpers.command_line import command_in, read_images_once
from tests.helpers.pages import page

pytest.importorskip("datasets")
TEXT, FILES, COMMANDS = page("data.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of the first example are."""
    made = tmp_path_factory.mktemp("examples")
    for name, content in FILES.items():
        (made / name).write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.setattr("datamodules.emoji.datamodule.read_images", read_images_once)
        runpy.run_path("make_examples.py")
    return made


def test_every_block_has_a_name() -> None:
    assert len(FILES) == TEXT.count("```python") == 4
    assert len(COMMANDS) == TEXT.count("```bash") == 4


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_run(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python, script, *words = shlex.split(line)
    assert (python, script) == ("python", "run.py")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    small = ["encoder.hidden=[16]"] if "encoder=mlp" in words else MLP
    options = ["trainer.fast_dev_run=true", *QUICK, "+datamodule.eval_batch_size=64", "datamodule.num_workers=0"]
    options.remove("datamodule.eval_batch_size=64")
    assert command_in(folder, monkeypatch)(*words, *small, *options) == 0


def test_its_other_files_run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    assert "data" in runpy.run_path("from_memory.py")
    runpy.run_path("read_texts.py")
    augment = runpy.run_path("keyed_transform.py")["augment"]
    images, keys = torch.rand(40, 3, 4, 4), torch.arange(40)
    state = torch.get_rng_state()
    turned = augment(images, keys)
    assert torch.equal(augment(images.flip(0), keys.flip(0)), turned.flip(0)) and not torch.equal(turned, images)
    assert torch.equal(torch.get_rng_state(), state)
    assert ", drawn as picture " in capsys.readouterr().out


def test_the_arguments_that_all_have_are_listed() -> None:
    table = TEXT.split("## Arguments of all data modules")[1]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted(field.name for field in fields(PKDataModule))
