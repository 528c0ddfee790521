"""The wheel, unpacked into an empty folder: it trains, resumes and sweeps from another empty folder."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest
import torch

from tests.helpers.command_line import MY_ENCODERS
from tests.helpers.pages import page

ROOT = Path(__file__).resolve().parents[2]
MODULE = (sys.executable, "-m", "metric_module")
SCRIPT = "import sys\n\nfrom metric_module.cli import main\n\nsys.exit(main())\n"
WHERE = (
    'import datamodules, metric_module\nprint("imported", metric_module.__file__, datamodules.__file__, flush=True)\n'
)
SMALL = (
    "datamodule.image_size=16",
    "datamodule.class_turns=0",
    "datamodule.classes_per_batch=8",
    "datamodule.eval_batch_size=60",
    "trainer.accelerator=cpu",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "trainer.max_epochs=1",
    "scheduler=constant",
    "logger=csv",
    "report=false",
    "test=false",
)


def built(source: Path, target: str, folder: Path) -> Path:
    """Build a wheel or an sdist, without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Make a folder with an encoder, which prints where the packages come from, and a yaml for it."""
    (tmp_path / "my_encoders.py").write_text(MY_ENCODERS.replace("AvgPool2d(8)", "AvgPool2d(2)") + WHERE)
    (tmp_path / "my_conf/encoder").mkdir(parents=True)
    (tmp_path / "my_conf/encoder/tiny.yaml").write_text("_target_: my_encoders.Tiny\nembedding_dim: 4\n")
    return tmp_path


def run(folder: Path, unpacked: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command with the unpacked wheel; the checkout that is installed for these tests comes after it."""
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def assert_imported(said: str, unpacked: Path, times: int) -> None:
    """Assert that every process took both packages from the wheel."""
    line = f"imported {unpacked}/metric_module/__init__.py {unpacked}/datamodules/__init__.py"
    assert re.findall(r"imported .*", said) == [line] * times


def test_what_is_in_the_wheel(wheel: Path, tmp_path: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    yamls = {f"metric_module/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "metric_module").rglob("*.py")}
    moved = {"metric_module/config/conf_package.py"}
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "metric_module").rglob("*.jinja")}
    assert len(yamls) > 80 and names > yamls | (code - moved)
    assert {name for name in names if name.startswith("metric_module/conf/")} == {
        *yamls,
        "metric_module/conf/__init__.py",
    }
    assert len(pages) >= 5 and names > pages | {"metric_module/report/page.css", "metric_module/report/page.js"}
    assert {"metric_module/py.typed", "datamodules/py.typed", "datamodules/emoji/data/emoji.png"} < names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"metric_module", "datamodules", "hydra_plugins"}
    assert {name for name in names if name.startswith("hydra_plugins/")} == {
        "hydra_plugins/lightning_triplets_optuna.py"
    }
    with tarfile.open(built(ROOT, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("lightning_triplets-*")
    assert set(zipfile.ZipFile(built(source, "wheel", tmp_path / "again")).namelist()) == names


def test_the_console_script(unpacked: Path) -> None:
    """The console script is declared in the wheel, and callable."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    (folder,) = unpacked.glob("*.dist-info")
    found = Distribution.at(folder).entry_points.select(group="console_scripts")
    assert {entry.name: entry.value for entry in found} == declared
    assert set(declared) == {"lightning-triplets"}
    module, _, function = declared["lightning-triplets"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_help_and_mistakes(unpacked: Path, tmp_path: Path) -> None:
    said = run(tmp_path, unpacked, *MODULE, "--help").stdout
    assert "criterion: soft_triplet, triplet\n" in said and "__pycache__" not in said
    assert f"{shlex.join(MODULE)} miner=semihard margin=0.1 seed=7" in said and "run.py" not in said
    message = run(tmp_path, unpacked, *MODULE, "encoder=convnet", code=2).stderr
    assert "error: encoder=convnet: unknown option; did you mean 'conv_net'? allowed: char_conv_net, " in message
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_a_run_on_two_processes_and_its_continuation(unpacked: Path, here: Path) -> None:
    """Begin with a console script as pip writes it, which is no module and lies elsewhere; continue with the module."""
    (here / "bin").mkdir()
    (here / "bin/lightning-triplets").write_text(SCRIPT)
    mine = ("--config-dir", "my_conf", "trusted=[my_encoders]")
    two = ("trainer=ddp_cpu", "trainer.devices=2")
    done = run(here, unpacked, sys.executable, "bin/lightning-triplets", *mine, "encoder=tiny", *SMALL, *two)
    assert_imported(done.stdout, unpacked, 2)
    (folder,) = (here / "runs/train").iterdir()
    assert {"config.yaml", "metrics.json", "metrics.csv", "checkpoints"} <= {path.name for path in folder.iterdir()}
    again = (f"resume={folder}", "trainer.max_epochs=2", "trainer.devices=1")
    done = run(here, unpacked, *MODULE, *mine, *again)
    assert_imported(done.stdout, unpacked, 1)
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert (last["epoch"], last["global_step"]) == (1, 4)


@pytest.mark.integration
def test_a_sweep_and_its_continuation(unpacked: Path, here: Path) -> None:
    own = ("encoder=custom", "encoder._target_=my_encoders.Tiny")
    words = ("-m", "margin=0.2,-1", *own, *SMALL, "hydra.sweep.dir=sweep")
    done = run(here, unpacked, *MODULE, *words, code=1)
    assert_imported(done.stdout, unpacked, 1)
    hint = f"{shlex.join(MODULE)} resume_sweep=sweep"
    assert done.stderr.endswith(f"to run the missing and failed jobs: {hint}\n")
    assert hint in (here / "sweep/sweep.html").read_text()
    assert [json.loads((here / f"sweep/{job}/job.json").read_text())["exit_code"] for job in range(2)] == [0, 2]
    again = run(here, unpacked, *MODULE, "resume_sweep=sweep", "trusted=[my_encoders]", code=1)
    assert "imported" not in again.stdout, "the job that is done is left alone, and the other fails before it imports"
    assert "1 of 2 jobs done, written to sweep/sweep.html" in again.stdout


@pytest.mark.integration
def test_another_hydra_project(unpacked: Path, tmp_path: Path) -> None:
    """The project of docs/extending.md composes with the groups of the wheel."""
    _, files, _ = page("extending.md")
    for name in ("my_project.py", "my_project/config.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(files[name] + (WHERE if name.endswith(".py") else ""))
    words = [word for word in SMALL if word.startswith("datamodule.")]
    words += ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "+trainer.accelerator=cpu"]
    words += ["+trainer.limit_train_batches=1", "+trainer.limit_val_batches=1", "hydra.run.dir=run"]
    done = run(tmp_path, unpacked, sys.executable, "my_project.py", *words)
    assert_imported(done.stdout, unpacked, 1)
    assert "is not available" not in done.stderr, "Hydra warns so of a folder that is no package"
    assert (tmp_path / "run/checkpoints/best.ckpt").is_file()
