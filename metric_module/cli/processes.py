"""A run of several processes: the folder that they share, and the end of one of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from metric_module.errors import UserError
from metric_module.storage.run_folder import is_first_process

FAILED, REFUSED = 1, 2
"""Exit codes: another process of the run is gone, and a mistake of the user."""

_OBSERVER = "lightning.fabric.strategies.launchers.subprocess_script"


def check_named(words: Iterable[str]) -> None:
    """Reject a folder named by the clock of each process, where a launcher started several.

    Args:
        words: The overrides of Hydra's own options.

    Raises:
        UserError: On the first process, if torchrun or srun started several, and no folder is given.
        SystemExit: On the others, so that this is said once.
    """
    processes = _launched()
    if processes == 1 or any(word.lstrip("+").startswith("hydra.run.dir=") for word in words):
        return
    if not is_first_process():
        raise SystemExit(REFUSED)
    raise UserError(
        f"hydra.run.dir: each of {processes} processes of torchrun or srun would name the folder by its own clock; "
        "give hydra.run.dir=runs/mine, a folder that all of them share"
    )


def show_dead_children() -> None:
    """Show what Lightning logs as information, before it kills every process because one that it started died."""
    logging.getLogger(_OBSERVER).addFilter(_as_error)


def _launched() -> int:
    """Return how many processes torchrun or srun started for this run; 1 without them."""
    of_slurm = os.environ.get("SLURM_NTASKS", "1") if "SLURM_PROCID" in os.environ else "1"
    return int(os.environ.get("WORLD_SIZE", of_slurm))


def _as_error(record: logging.LogRecord) -> bool:
    record.levelno, record.levelname = logging.ERROR, "ERROR"
    return True
