"""The default recipe and Markdown tables, for all benchmarks."""

from __future__ import annotations

import atexit
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir

from metric_module.config import conf_folder
from metric_module.config.schema import register
from metric_module.tasks.build import Parts, build

CONF = conf_folder()


def recipe(overrides: Sequence[str] = ()) -> Parts:
    """Module, data and trainer that ``python run.py`` would use with these overrides, without loggers or callbacks."""
    register()
    folder = scratch_folder()
    quiet = ["trainer.enable_progress_bar=false", "trainer.enable_model_summary=false"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [f"output_dir={folder}", *quiet, *overrides])
    cfg.logger, cfg.callbacks = {}, {key: node for key, node in cfg.callbacks.items() if key == "ema"}
    return build(cfg)


def scratch_folder() -> str:
    """Create a folder for checkpoints and other files that are removed when the benchmark ends."""
    folder = tempfile.mkdtemp(prefix="benchmark_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def peak_megabytes() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def proportional_megabytes() -> float:
    """PSS of this process and its children together."""
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    total = 0
    for process in [os.getpid(), *map(int, found)]:
        match = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
        total += int(match[1]) if match else 0
    return total / 1024


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal and the docs.

    Example:
        >>> print(markdown(["a", "b"], [["1", "2"]]))
        | a | b |
        |---|---|
        | 1 | 2 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" if line[0] != "---" else f"|{'|'.join(line)}|" for line in lines)
