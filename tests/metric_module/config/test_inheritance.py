"""Child processes run the same package with the same trusted names, whatever the current folder holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from lightning.fabric.strategies.launchers.subprocess_script import _basic_subprocess_cmd

from metric_module.config.inheritance import import_from, passed_on
from metric_module.config.program import PROGRAM
from metric_module.config.trust import WORDS

ROOT = Path(__file__).resolve().parents[3]
NAMES = (WORDS, PROGRAM, "PYTHONPATH", "PYTHONSAFEPATH")


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set up the process as ``python run.py margin=0.1`` from an empty folder does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py", "margin=0.1"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "run.py", "margin=0.1"])
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def package(folder: Path, name: str, code: str = "raise ImportError('not this one')\n") -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)


def test_what_children_inherit(called: Path) -> None:
    spec = sys.modules["__main__"].__spec__
    with passed_on():
        assert (os.environ[WORDS], os.environ[PROGRAM]) == (json.dumps(["margin=0.1"]), "python run.py")
        assert os.environ["PYTHONPATH"] == str(ROOT)
        assert os.environ["PYTHONSAFEPATH"] == "1"
        assert _basic_subprocess_cmd() == [sys.executable, "-m", "metric_module.__main__", "margin=0.1"]
    assert not set(NAMES) & set(os.environ)
    assert sys.modules["__main__"].__spec__ is spec


def test_a_child_passes_on_what_it_inherited(called: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORDS, '["seed=1"]')
    monkeypatch.setenv(PROGRAM, "lightning-triplets")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/other", str(ROOT)]))
    with passed_on():
        assert (os.environ[WORDS], os.environ[PROGRAM]) == ('["seed=1"]', "lightning-triplets")
        assert os.environ["PYTHONPATH"] == os.pathsep.join([str(ROOT), "/other"])
    assert os.environ["PYTHONPATH"] == os.pathsep.join(["/other", str(ROOT)])
    assert os.environ[WORDS] == '["seed=1"]'


def test_an_installed_package_needs_no_path(called: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(ROOT))
    with passed_on():
        assert "PYTHONPATH" not in os.environ


def test_the_users_own_modules_come_last(called: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = str(called)
    for before in (
        ["/env/bin", "/lib", str(ROOT)],
        [here, "/env/bin", "/lib", str(ROOT)],
        ["", "/env/bin", "/lib", str(ROOT)],
    ):
        monkeypatch.setattr(sys, "path", before)
        import_from(called)
        assert sys.path == ["/env/bin", "/lib", str(ROOT), here]
    package(called, "umap")
    package(called, "datamodules")
    other = called / "site"
    other.mkdir()
    package(other, "umap", "installed = True\n")
    monkeypatch.setattr(sys, "path", [here, str(other), str(ROOT)])
    import_from(called)
    assert sys.path == [str(other), str(ROOT), here]
    monkeypatch.delitem(sys.modules, "umap", raising=False)
    assert import_module("umap").installed is True
    monkeypatch.setattr(sys, "path", [here, str(other)])
    import_from(called)
    assert sys.path == [str(ROOT), str(other), here], "as if the project were not installed"


@pytest.mark.integration
def test_jobs_do_not_run_another_package_in_the_current_folder(tmp_path: Path) -> None:
    """Sweep with the path of run.py from a folder with packages of the same names."""
    package(tmp_path, "metric_module")
    package(tmp_path, "datamodules")
    words = ["-m", "margin=0.3", "trainer.fast_dev_run=true", "trainer.accelerator=cpu", "encoder=mlp"]
    words += ["datamodule.classes_per_batch=8", "datamodule.eval_batch_size=64", "hydra.sweep.dir=sweep"]
    command = [sys.executable, str(ROOT / "run.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sweep/0/metrics.json").is_file()
