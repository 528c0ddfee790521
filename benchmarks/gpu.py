"""Check the project on a GPU: accuracy, cost and training runs, in one table and one JSON file.

    python -m benchmarks.gpu                           # on a GPU, at most six minutes
    python -m benchmarks.gpu --small --output small.json   # all of it on the CPU, with tiny sizes

Each case is caught on its own: one that fails has its error in the table, and the exit code is 1 at the end. Neither
plotly nor pytorch-metric-learning needs to be installed. docs/gpu.md explains the figures.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.common import markdown
from benchmarks.gpu_accuracy import MODES, accuracy
from benchmarks.gpu_cases import MINERS, SMALL, Figures, Settings
from benchmarks.gpu_cost import criterion_cost, exact_retrieval, mining_share, peer_cost, step_counts
from benchmarks.gpu_runs import all_evaluations, resumed_run, single_run

MINED = ("semihard", "distance_weighted")
AT_ONCE = 2  # training runs


class Case(NamedTuple):
    """One row of the table."""

    part: str
    name: str
    measure: Callable[[], Figures]


def measurements(settings: Settings) -> list[Case]:
    """Cases that are measured in this process, one after the other."""
    peers = [batch for batch in settings.batches if batch <= settings.peer_batch]
    cases = [
        Case("accuracy", f"{name}, {mode}", partial(accuracy, settings, name, mode))
        for name in MINERS
        for mode in MODES
    ]
    cases += [
        Case("criterion", f"{name}, B={batch}", partial(criterion_cost, settings, name, batch))
        for name in MINED
        for batch in settings.batches
    ]
    if find_spec("pytorch_metric_learning"):
        cases += [
            Case("criterion", f"semihard of PML, B={batch}", partial(peer_cost, settings, batch)) for batch in peers
        ]
    cases += [
        Case("encoder step", f"{settings.encoder}, {name}", partial(mining_share, settings, name)) for name in MINED
    ]
    cases.append(Case("retrieval", f"{settings.items} items", partial(exact_retrieval, settings)))
    # The last ones, as their trainer sets deterministic algorithms for the process.
    return cases + [Case("training step", f"default, {name}", partial(step_counts, settings, name)) for name in MINED]


def runs(settings: Settings) -> list[Case]:
    """Training runs, in processes of their own."""
    words = settings.run
    trainer = "ddp" if settings.device == "cuda" else "ddp_cpu"
    own = ("encoder=custom", "encoder._target_=my_encoders.Tiny")
    return [
        Case("runs", "stopped and resumed", partial(resumed_run, words)),
        Case("runs", f"trainer={trainer}", partial(single_run, words, f"trainer={trainer}", "trainer.devices=1")),
        Case("runs", "evaluation=all", partial(all_evaluations, words)),
        Case("runs", "encoder of the README", partial(single_run, words, *own, encoder=True)),
    ]


def measured(case: Case) -> dict[str, Any]:
    """The row of a case; one that fails has ``error``, the last line of the exception."""
    start = time.perf_counter()
    row: dict[str, Any] = {"part": case.part, "case": case.name}
    try:
        row |= case.measure()
    except Exception as error:
        traceback.print_exc()
        row["error"] = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    print(f"{case.part}: {case.name}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return row


def check(settings: Settings) -> dict[str, Any]:
    """Measure everything.

    Args:
        settings: Sizes and device.

    Returns:
        What is written as JSON: device, versions, rows and failures.
    """
    rows = [measured(case) for case in measurements(settings)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        rows += pool.map(measured, runs(settings))
    return {
        "device": torch.cuda.get_device_name() if settings.device == "cuda" else f"CPU, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "rows": rows,
        "failures": [f"{row['part']}: {row['case']}: {row['error']}" for row in rows if "error" in row],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each row, with its figures by name."""
    lines = [
        [row["part"], row["case"], ", ".join(f"{key} {_text(row[key])}" for key in row if key not in {"part", "case"})]
        for row in rows
    ]
    return markdown(["part", "case", "figures"], lines)


def _text(value: float | int | bool | str) -> str:
    """A figure with three digits; a count whole; a text so that it stays in its cell."""
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", "/")


def main() -> int:
    """Measure, print the table, write the JSON, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="everything on the CPU, with tiny sizes")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    if not arguments.small and not torch.cuda.is_available():
        parser.error("expected a GPU that torch can use; --small runs everything on the CPU")
    start = time.perf_counter()
    if arguments.small:  # one thread for each of the runs at once, and none to spare for small tensors
        torch.set_num_threads(1)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = check(SMALL if arguments.small else Settings())
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found["rows"]))
    print(f"\n{found['device']}, torch {found['torch']}, Python {found['python']}, {time.perf_counter() - start:.0f} s")
    for failure in found["failures"]:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
