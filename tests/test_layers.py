"""The layout of the packages: what may import what, and where a test belongs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("metric_module", "datamodules", "hydra_plugins", "benchmarks")

# From top to bottom. A file imports from its own layer and from lower ones; the longest name that fits a module counts.
LAYERS = (
    ("benchmarks",),
    ("run", "metric_module.__main__", "metric_module.tasks"),
    ("metric_module", "metric_module.cli", "metric_module.callbacks", "hydra_plugins"),  # metric_module: its __init__
    ("metric_module.sweeps", "metric_module.module"),
    (
        "metric_module.report",
        "metric_module.embedding_module",
        "metric_module.datamodule_facts",
        "metric_module.training",
        "metric_module.inference",
        "metric_module.export",
        "metric_module.serving",
    ),
    ("metric_module.criterion", "metric_module.encoders", "datamodules"),
    (
        "metric_module.miners",
        "metric_module.evaluation",
        "metric_module.batch",
        "metric_module.sample_ids",
        "metric_module.loggers",
    ),
    (
        "metric_module.distances",
        "metric_module.config",
        "metric_module.storage",
        "metric_module.relations",
        "metric_module.preprocessing",
        "metric_module.keyed_random",
        "metric_module.checks",
    ),
    ("metric_module.functional", "metric_module.distributed", "metric_module.errors", "metric_module.version"),
)
LAYER_OF = {name: depth for depth, names in enumerate(LAYERS) for name in names}
FILES = [ROOT / "run.py", *(path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def layer(module: str) -> int:
    """The layer of a module; ``metric_module`` itself stands for its ``__init__``, not for what is inside."""
    words = module.split(".")
    names = [".".join(words[:end]) for end in range(len(words), 0, -1)]
    found = [name for name in names if name in LAYER_OF and (name != "metric_module" or name == module)]
    assert found, f"{module} has no layer: add it to LAYERS"
    return LAYER_OF[found[0]]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import of our own, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in whole]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] in (*PACKAGES, "run"))


def upward(path: Path) -> list[str]:
    own = module_of(path)
    return [f"{own}:{line} imports {name}" for line, name in imports(path) if layer(name) < layer(own)]


def test_nothing_imports_from_a_higher_layer() -> None:
    assert [line for path in FILES for line in upward(path)] == []


def test_an_import_from_a_higher_layer_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / "metric_module" / "miners" / "far.py"
    path.parent.mkdir(parents=True)
    path.write_text("import torch\n\n\ndef f():\n    from metric_module import criterion, errors\n")
    assert upward(path) == ["metric_module.miners.far:5 imports metric_module.criterion"]
    path.write_text("from metric_module import TripletModule\nimport metric_module.functional\n")
    assert upward(path) == ["metric_module.miners.far:1 imports metric_module"]


def test_metric_module_never_imports_datamodules() -> None:
    ours = [path for path in FILES if module_of(path).startswith("metric_module")]
    assert [path for path in ours for _, name in imports(path) if name.split(".")[0] == "datamodules"] == []


def test_few_files_lie_at_the_root_of_the_package() -> None:
    assert len([path for path in (ROOT / "metric_module").iterdir() if path.is_file()]) <= 16


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_mirror_the_packages(package: str) -> None:
    """``test_<module>.py`` or ``test_<module>_<aspect>.py`` in the module's place; or the name of the whole folder."""
    strays = []
    for path in sorted((ROOT / "tests" / package).rglob("test_*.py")):
        home = ROOT / path.parent.relative_to(ROOT / "tests")
        names = [home.name, *(other.stem for other in home.glob("*.py"))]
        subject = path.stem.removeprefix("test_")
        if not any(f"{subject}_".startswith(f"{name}_") for name in names):
            strays.append(str(path.relative_to(ROOT)))
    assert strays == []
