"""Output folders: removal after a rejected run, and quoting for Hydra."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

# A run writes these before its first step: a folder with nothing else belongs to a rejected run.
_BEFORE_THE_FIRST_STEP = {".hydra", "run.log", "config.yaml", "tensorboard", "checkpoints"}


def forget_refused(folder: Path) -> None:
    """Delete the output folder of a run that was rejected before training; any other folder is kept.

    Args:
        folder: The run's folder.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0" or not folder.is_dir():
        return
    if {path.name for path in folder.iterdir()} <= _BEFORE_THE_FIRST_STEP and not any(folder.glob("checkpoints/*")):
        remove(folder)


def quoted(folder: Path) -> str:
    r"""Quote a folder as a value on Hydra's command line.

    Args:
        folder: Any path, with any characters.

    Example:
        >>> print(quoted(Path("it's")))
        'it\'s'
    """
    return "'" + str(folder).replace("'", "\\'") + "'"


def remove(folder: Path) -> None:
    """Remove a folder, and those parents inside the current folder that are empty afterwards.

    Args:
        folder: The folder to remove, with its content.
    """
    folder = folder.resolve()
    shutil.rmtree(folder)
    for parent in folder.parents:
        if Path.cwd().resolve() not in parent.parents or any(parent.iterdir()):
            return
        parent.rmdir()
