"""Checkpoints: written atomically, read as plain values and tensors alone."""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.storage.atomic import beside

_FROM_SPAWNED = ".temp.ckpt"  # Lightning's name for the weights that a spawned process returns


class WholeCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically, and read plain values and tensors alone, whatever the caller asks for.

    Give it to ``Trainer(plugins=[WholeCheckpointIO()])``; the command line does so. If the disk is full, the previous
    checkpoint is kept. Paths with a protocol (``s3://...``) are written by Lightning and read in the same safe way.
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            UserError: If the file cannot be written.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        file = Path(path)
        try:
            with beside(file) as part, part.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
        except (OSError, RuntimeError) as error:  # torch reports a short write as a RuntimeError
            reason = getattr(error, "strerror", None) or getattr(error.__context__, "strerror", None) or str(error)
            kept = "; the previous checkpoint is kept" if file.is_file() else ""
            raise UserError(f"checkpoint: cannot write {file} ({reason.splitlines()[0]}){kept}") from error

    @override
    def load_checkpoint(
        self, path: Any, map_location: Any = lambda storage, _: storage, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint, as :func:`load_checkpoint` does; also weights alone, from processes of ``ddp_spawn``."""
        if Path(str(path)).name == _FROM_SPAWNED:
            return super().load_checkpoint(path, map_location, weights_only=True)
        return load_checkpoint(path, map_location)


def load_checkpoint(path: Any, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint as plain values and tensors; nothing in it is executed.

    Args:
        path: The file, or anything Lightning reads from.
        map_location: As in :func:`torch.load`.

    Raises:
        UserError: If the file is not a checkpoint, is damaged, or contains other objects.
    """
    try:
        loaded: dict[str, Any] = TorchCheckpointIO().load_checkpoint(path, map_location, weights_only=True)
        if not isinstance(loaded.get("state_dict"), dict):
            raise TypeError
    except Exception as error:
        raise UserError(f"ckpt_path: {path} is not a checkpoint of plain tensors ({type(error).__name__})") from error
    return loaded


def map_checkpoint(path: Any) -> dict[str, Any]:
    """Read a checkpoint as :func:`load_checkpoint` does, but map its tensors, so that those not used stay on disk.

    Args:
        path: The file.

    Raises:
        UserError: As :func:`load_checkpoint`.
    """
    try:
        found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception:  # another format, or no checkpoint: decided below
        return load_checkpoint(path)
    has_state = isinstance(found, dict) and isinstance(found.get("state_dict"), dict)
    return found if has_state else load_checkpoint(path)


def keep_threshold(path: Path, threshold: float | None) -> None:
    """Replace the threshold in a checkpoint, atomically; everything else in it stays the same, bit for bit.

    Args:
        path: The file.
        threshold: Distance up to which two samples count as the same, or None.

    Raises:
        UserError: If the file cannot be read or written.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.get("threshold") != threshold:
        WholeCheckpointIO().save_checkpoint(checkpoint | {"threshold": threshold}, path)


def newest_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint of a folder that can be read completely; a warning names damaged ones.

    The newest has the most steps; of several, ``last.ckpt``, and then the one that was written last.

    Args:
        folder: Folder of ``*.ckpt`` files.

    Returns:
        The file, or None if there is none.
    """
    for path in sorted(folder.glob("*.ckpt"), key=_age, reverse=True):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            load_checkpoint(path)
        except (zipfile.BadZipFile, UserError, EOFError, OSError) as error:
            damaged = str(error)
        if damaged is None:
            return path
        warnings.warn(f"checkpoint: {path} is damaged ({damaged}); looking for an older one", stacklevel=2)
    return None


def _age(path: Path) -> tuple[float, bool, int]:
    """Sort key of checkpoints: steps (infinite if unreadable, so that a warning names the file), name, time."""
    try:
        step = map_checkpoint(path).get("global_step", -1)
    except UserError:
        step = math.inf
    return step if isinstance(step, int | float) else -1, path.name == "last.ckpt", path.stat().st_mtime_ns
