"""Folder of a run: one run at a time, never a second one over a first, and nothing left of one that did not start."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from metric_module.errors import UserError
from metric_module.storage.atomic import remove_parts
from metric_module.storage.lock import is_held, locked

CONFIG = "config.yaml"
"""A run writes this file when it starts."""

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "NODE_RANK", "GROUP_RANK")

_missing: dict[Path, Path] = {}
"""The first folder that did not exist, from the top, by the folder of each run of this process."""


def is_first_process() -> bool:
    """Return whether this is the first process of its run, from the variables of torchrun, SLURM and Lightning."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def note_missing(folder: Path) -> None:
    """Remember which part of a path does not exist yet, before anything creates it.

    Args:
        folder: Folder of a run or a sweep.
    """
    path = folder.resolve()
    missing = [part for part in (path, *path.parents) if not os.path.exists(part)]  # noqa: PTH110  # no error for long names
    if missing:
        _missing[path] = missing[-1]


def remove_empty() -> None:
    """Remove the folders that this process created and left empty."""
    while _missing:
        path, first = _missing.popitem()
        for part in (path, *path.parents):
            if first not in (part, *part.parents):
                break
            with suppress(OSError):
                part.rmdir()


def contents(folder: Path) -> frozenset[Path]:
    """List everything inside a folder.

    Args:
        folder: Any folder; empty if there is none.
    """
    return frozenset(folder.rglob("*"))


def remove_new(folder: Path, before: frozenset[Path]) -> None:
    """Remove everything inside a folder that was not there before.

    Args:
        folder: The folder, which is kept.
        before: Earlier result of :func:`contents`.
    """
    for path in sorted(contents(folder) - before, reverse=True):  # a file comes before its folder
        with suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()


@contextmanager
def claim(folder: Path, continues: bool) -> Iterator[None]:
    """Work in the folder of a run: lock it, and leave nothing new in it if the run fails before it has started.

    A run has started when it writes ``config.yaml``. Child processes share the claim of the process that started them.

    Args:
        folder: The folder, which exists.
        continues: Whether this run continues the one in the folder.

    Raises:
        UserError: If another process works there, or it holds a run that this one does not continue.
    """
    if not is_first_process():
        yield
        return
    with ExitStack() as stack:
        if not is_held(folder):
            _lock(stack, folder)
            check_free(folder, continues)
        remove_parts(folder)
        before, started = contents(folder), _version(folder)
        try:
            yield
        except BaseException:
            if _version(folder) == started:
                _close_logs(folder)
                remove_new(folder, before)
            raise


def check_free(folder: Path, continues: bool = False) -> None:
    """Refuse a folder that holds another run.

    Args:
        folder: Folder of the next run.
        continues: Whether that run continues the one in the folder.

    Raises:
        UserError: If there is a run in it that is not continued.
    """
    if not continues and (folder / CONFIG).is_file():
        raise UserError(
            f"hydra.run.dir: {folder} holds a run; to continue its training give resume={folder}, "
            "for anything else give another folder"
        )


def _lock(stack: ExitStack, folder: Path) -> None:
    """Lock a folder where the system has locks."""
    try:
        stack.enter_context(locked(folder, wait=False))
    except ImportError:
        return
    except BlockingIOError:
        _missing.pop(folder.resolve(), None)
        raise UserError(
            f"hydra.run.dir: another process works in {folder}; wait for its end, or give another folder"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        print(f"warning: cannot lock {folder} ({reason}); start no second run there", file=sys.stderr, flush=True)


def _close_logs(folder: Path) -> None:
    """Close the log files in a folder, so that later messages do not look for them."""
    for handler in logging.root.handlers[:]:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).is_relative_to(folder.resolve()):
            logging.root.removeHandler(handler)
            handler.close()


def _version(folder: Path) -> tuple[int, int] | None:
    """Identify the content of ``config.yaml``, which is always replaced as a whole; None without one."""
    try:
        found = (folder / CONFIG).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
