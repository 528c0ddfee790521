"""Takes back the folder of what was refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

# What a run writes before it has learned anything: a folder with nothing else belongs to a refused run.
_BEFORE_THE_FIRST_STEP = {".hydra", "run.log", "config.yaml", "tensorboard", "checkpoints"}


def forget_refused(folder: Path) -> None:
    """Remove the folder of a run that was refused before it learned anything; any other is left alone.

    Args:
        folder: The run's folder.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0" or not folder.is_dir():
        return
    if {path.name for path in folder.iterdir()} <= _BEFORE_THE_FIRST_STEP and not any(folder.glob("checkpoints/*")):
        remove(folder)


def quoted(folder: Path) -> str:
    r"""A folder as a value on Hydra's command line, whatever is in its name.

    Example:
        >>> print(quoted(Path("it's")))
        'it\'s'
    """
    return "'" + str(folder).replace("'", "\\'") + "'"


def remove(folder: Path) -> None:
    """Remove a folder, and the folders around it inside the current one that are then empty.

    Args:
        folder: What to remove, with all that is in it.
    """
    folder = folder.resolve()
    shutil.rmtree(folder)
    for parent in folder.parents:
        if Path.cwd().resolve() not in parent.parents or any(parent.iterdir()):
            return
        parent.rmdir()
