"""Bounded cache of objects on the local disk, which several processes share."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident
from typing import TextIO

from datamodules.sampling.dataset import StoreError
from metric_module.errors import UserError

GIGABYTE = 10**9
_KEPT = 0.9  # share of the limit that eviction leaves, so that it is rare
_ABANDONED = 3600  # seconds after which a temporary file belongs to no running process


class ObjectCache:
    """Contents by address, one file for each; those not used for the longest time are removed first.

    The total is in a file that is locked for each change, so that all processes together keep to the limit. It may be
    too large after a crash, and is then counted again. A file's time of access is its last use, and its time of change
    the download.

    Args:
        folder: Where the files are.
        limit: Bytes of all files together.

    Raises:
        UserError: The limit is not positive.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        if not limit > 0:
            raise UserError(f"datamodule.cache_gb: expected a number > 0, got {limit / GIGABYTE:g}")
        self.folder = folder
        self.limit = int(limit)

    def path_of(self, address: str) -> Path:
        """Return the file of an address."""
        return self.folder / hashlib.sha256(address.encode(errors="surrogateescape")).hexdigest()

    def get(self, address: str) -> bytes | None:
        """Read a content; None if there is none.

        Args:
            address: The address.
        """
        try:
            return self.path_of(address).read_bytes() if self.touch(address) else None
        except OSError:
            return None

    def touch(self, address: str) -> bool:
        """Count now as the last use of a content, and return whether there is one.

        Args:
            address: The address.
        """
        path = self.path_of(address)
        try:
            known = path.stat()
            os.utime(path, ns=(time.time_ns(), known.st_mtime_ns))
        except OSError:
            return False
        return known.st_size > 0  # a power failure may leave a name without its content

    def put(self, address: str, content: bytes) -> None:
        """Write a content atomically, and remove others to make room; one larger than the limit is not kept.

        Args:
            address: The address.
            content: The content.

        Raises:
            StoreError: The folder cannot be written.
        """
        if len(content) > self.limit:
            return
        path = self.path_of(address)
        part = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")  # a table may name an object twice
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            self._make_room(len(content))  # before the rename: after a crash, the total is too large, not too small
            part.replace(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise StoreError(f"datamodule.cache_dir: cannot write {self.folder} ({error.strerror or error})") from error

    def _make_room(self, size: int) -> None:
        """Add bytes to the total, and evict others if they are too many."""
        with self._locked() as file:
            text = file.read()
            total = int(text) if text.isdigit() else self._evict(self.limit)
            if total + size > self.limit:
                total = self._evict(min(self.limit - size, int(_KEPT * self.limit)))
            file.seek(0)
            file.write(f"{total + size:020}")  # of one length, since to truncate a file is slow

    def discard(self, address: str) -> None:
        """Forget a content.

        Args:
            address: The address.
        """
        self.path_of(address).unlink(missing_ok=True)

    def discard_changed(self, address: str, size: int | None, changed: float | None) -> None:
        """Forget a content that differs from the object as it is listed, by size or because it is older.

        Args:
            address: The address.
            size: Bytes of the object; None: unknown.
            changed: Its time of change in seconds since 1970; None: unknown.
        """
        with suppress(FileNotFoundError):
            known = self.path_of(address).stat()
            if size not in {None, known.st_size} or (changed is not None and changed >= known.st_mtime - 1):
                self.discard(address)

    @contextmanager
    def _locked(self) -> Iterator[TextIO]:
        """Lock the cache, for other processes and threads, and open the file with the total."""
        import fcntl

        with os.fdopen(os.open(self.folder / ".total", os.O_RDWR | os.O_CREAT, 0o644), "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _evict(self, target: int) -> int:
        """Remove the least recently used files until a number of bytes is left, and return how many are."""
        found, now = [], time.time()
        for entry in os.scandir(self.folder):
            if entry.name != ".total":
                with suppress(FileNotFoundError):
                    known = entry.stat()
                    if not entry.name.startswith(".") or now - known.st_mtime > _ABANDONED:
                        found.append((known.st_atime_ns, known.st_size, entry.path))
        left = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if left <= target:
                break
            Path(path).unlink(missing_ok=True)
            left -= size
        return left
