"""Training runs of ``benchmarks.gpu``, each ``python run.py`` in a process and a temporary folder of its own."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning import Callback, LightningModule, Trainer
from safetensors.torch import load_file
from torch import Tensor
from typing_extensions import override

from benchmarks.gpu_cases import Figures

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 2
TIMEOUT = 240  # seconds of one run
STOP = ("+callbacks.stop._target_=benchmarks.gpu_runs.StopAfterFirstEpoch", "trusted=[benchmarks]")


class StopAfterFirstEpoch(Callback):
    """Sends SIGTERM to its own process in the last step of the first epoch, as a cluster would."""

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Send the signal; training then stops after the checkpoint at the end of the epoch."""
        if trainer.current_epoch == 0 and trainer.is_last_batch:
            os.kill(os.getpid(), signal.SIGTERM)


def launch(folder: Path, *words: str, code: int = 0) -> float:
    """Call ``run.py`` from a folder, and wait for it.

    Args:
        folder: The current folder of the process.
        words: Of the command line.
        code: Exit code that is expected.

    Returns:
        Seconds.

    Raises:
        RuntimeError: If the exit code is another one, with the last line of the standard error.
    """
    start = time.perf_counter()
    command = [sys.executable, str(ROOT / "run.py"), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    if done.returncode != code:
        last = (done.stderr.strip().splitlines() or ["nothing on the standard error"])[-1]
        raise RuntimeError(f"run.py {' '.join(words)}: expected exit code {code}, got {done.returncode}: {last}")
    return time.perf_counter() - start


def options(settings: tuple[str, ...]) -> tuple[str, ...]:
    """Words of the default run for two epochs; without its page where plotly, which draws it, is not installed."""
    page = () if find_spec("plotly") or "report=false" in settings else ("report=false",)
    return (f"trainer.max_epochs={EPOCHS}", *page, *settings)


def single_run(settings: tuple[str, ...], *words: str, encoder: bool = False) -> Figures:
    """Train once, and read the figures.

    Args:
        settings: Words of every run.
        words: Of this run.
        encoder: Whether the encoder of the README stands in the folder.

    Returns:
        Seconds, MAP@R on the validation classes, and the number of figures.
    """
    with TemporaryDirectory(prefix="benchmark_") as name:
        if encoder:
            (Path(name) / "my_encoders.py").write_text(readme_encoder())
        seconds = launch(Path(name), *options(settings), *words, "hydra.run.dir=run")
        found = read_metrics(Path(name) / "run")
    return {"seconds": seconds, "val_map_at_r": found["val/map_at_r"], "number_of_figures": len(found)}


def all_evaluations(settings: tuple[str, ...]) -> Figures:
    """Train with every evaluation; clustering is left out where scikit-learn is not installed."""
    chosen = "all" if find_spec("sklearn") else "[retrieval,verification,few_shot]"
    return single_run(settings, f"evaluation={chosen}") | {"evaluation": chosen}


def resumed_run(settings: tuple[str, ...]) -> Figures:
    """Compare a run that was stopped after its first epoch and resumed with one that was never stopped.

    Returns:
        Whether weights and figures are equal to the bit, the largest relative difference of each, and to how many
        digits all of them agree (17, those of float64, if they are equal).
    """
    with TemporaryDirectory(prefix="benchmark_") as name:
        folder = Path(name)
        seconds = launch(folder, *options(settings), "hydra.run.dir=whole")
        launch(folder, *options(settings), *STOP, "hydra.run.dir=stopped", code=128 + signal.SIGTERM)
        if not (folder / "stopped/checkpoints/last.ckpt").is_file() or (folder / "stopped/metrics.json").exists():
            raise RuntimeError("expected a run that stopped after its first epoch, with a checkpoint and no figures")
        launch(folder, "resume=stopped", STOP[1])
        return {"seconds": seconds} | compared(folder / "whole", folder / "stopped")


def compared(one: Path, other: Path) -> Figures:
    """Compare the encoder's weights and the figures of two runs, given their folders.

    Raises:
        RuntimeError: If they have other weights or figures than each other, by name.
    """
    weights = [load_file(folder / "encoder.safetensors") for folder in (one, other)]
    figures = [read_metrics(folder) for folder in (one, other)]
    if weights[0].keys() != weights[1].keys() or figures[0].keys() != figures[1].keys():
        raise RuntimeError("expected two runs with the same weights and figures, by name")
    apart = [
        max(_difference(value, weights[1][name]) for name, value in weights[0].items()),
        max(abs(value - figures[1][name]) / max(abs(value), 1e-12) for name, value in figures[0].items()),
    ]
    worst = max(apart)
    digits = 17 if worst == 0 else max(0, math.floor(-math.log10(worst)))
    return {"equal": worst == 0, "weights_apart": apart[0], "figures_apart": apart[1], "equal_digits": digits}


def _difference(one: Tensor, other: Tensor) -> float:
    """Largest difference of two tensors of any shape, relative to the largest value."""
    first, second = one.double(), other.double()
    return float((first - second).abs().max() / first.abs().max().clamp(min=1e-12))


def read_metrics(folder: Path) -> Mapping[str, float]:
    """Final figures of a run by stage and name, ``{"val/map_at_r": ...}``."""
    found = json.loads((folder / "metrics.json").read_text())
    return {
        f"{stage}/{name}": value for stage, row in found.items() for name, value in row.items() if value is not None
    }


def readme_encoder() -> str:
    """Source of the encoder that the README shows as one of the user's own."""
    match = re.search(r"```python\n(# my_encoders\.py\n.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    if match is None:
        raise RuntimeError("README.md: expected a block of Python that begins with '# my_encoders.py'")
    return match[1]
