"""Source of images in an object store, fetched ahead of need into a cache on the local disk.

Legend: N = images, B = images in a batch, S = side in pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cached_property, partial
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch import Tensor
from typing_extensions import override

from datamodules.messages import listed
from datamodules.sampling.dataset import int64_ids
from datamodules.sources.addresses import is_cached, shown
from datamodules.sources.background import start
from datamodules.sources.columns import Strings
from datamodules.sources.duplicates import UNKNOWN, Hashes
from datamodules.sources.images import ImageFiles
from datamodules.sources.object_cache import GIGABYTE, ObjectCache
from datamodules.sources.object_listing import list_objects
from datamodules.sources.object_store import ObjectError, read, read_together
from datamodules.sources.paths import ManyPaths

TOGETHER = 32
"""Objects that one thread requests side by side."""

SMALL = 2**18
"""Most bytes of an object that waits in memory for its batch; a larger one is read from the cache."""

_HASHES: dict[int, Callable[[bytes], Any]] = {32: partial(hashlib.md5, usedforsecurity=False), 64: hashlib.sha256}


class ObjectImages(ImageFiles):
    """Image files in an object store by id.

    Args:
        addresses: Object of each image, N.
        image_size: S.
        cache_dir: Folder whose subfolder ``objects`` is the cache; None: ``lightning-triplets`` in the user's cache
            folder.
        cache_gb: Largest size of the cache in gigabytes.
        checksums: MD5 or SHA-256 of each content, hexadecimal, empty where unknown, N; None: all are unknown.

    Raises:
        UserError: ``cache_gb`` is not positive.
    """

    reads_ahead = True

    def __init__(
        self,
        addresses: ManyPaths,
        image_size: int,
        cache_dir: str | None = None,
        cache_gb: float = 10.0,
        checksums: Strings | None = None,
    ) -> None:
        super().__init__(addresses, image_size, cache_dir)
        self.cache = ObjectCache(self.cache_dir / "objects", cache_gb * GIGABYTE)
        self.checksums = checksums
        # What a process has begun to fetch, by row; None: nothing to wait for.
        self._begun: dict[int, dict[int, Future[dict[int, bytes]] | None]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what this process fetches."""
        return self.__dict__ | {"_begun": {}}

    @override
    def prefetch(self, ids: Tensor) -> None:
        """Begin to fetch images into the cache, in this order; those asked for earlier and not named are forgotten.

        Args:
            ids: Samples, int64 ``(B,)``.
        """
        before, rows = self._begun.pop(os.getpid(), {}), dict.fromkeys(ids.tolist())
        kept = {row: before.get(row) for row in rows}
        for future in {*before.values()} - {*kept.values()}:
            if future is not None:
                future.cancel()
        new = [row for row, future in kept.items() if future is None and self._is_missing(row)]
        for first in range(0, len(new), TOGETHER):
            part = new[first : first + TOGETHER]
            kept |= dict.fromkeys(part, start(self._warm, part))
        self._begun = {os.getpid(): kept}

    def _is_missing(self, row: int) -> bool:
        address = self.paths[row]
        return is_cached(address) and not self.cache.touch(address)

    @override
    def __call__(self, ids: Tensor) -> Tensor:
        """Decode images as :class:`ImageFiles` does, each when it is there.

        Args:
            ids: Samples, int64 ``(B,)``.

        Raises:
            BadSampleError: The first image that is missing or cannot be decoded.
            StoreError: The store does not answer, or denies access.
        """
        if not self._begun.get(os.getpid(), {}).keys() >= set(ids.tolist()):
            self.prefetch(ids)
        return super().__call__(ids)

    @override
    def decode(self, row: int) -> np.ndarray:
        """Read and crop one image; a copy that cannot be decoded is fetched again."""
        future = self._begun.get(os.getpid(), {}).get(row)
        if future is not None and (error := future.exception()) is not None:
            self._begun = {}  # another try is another request
            raise error
        content = (future and future.result().pop(row, None)) or self._content(row)
        try:
            return self.preprocessing.pixels(content)
        except Exception:  # Pillow raises many kinds
            self.cache.discard(self.paths[row])
        return self.preprocessing.pixels(self._content(row))

    def _content(self, row: int) -> bytes:
        """Return the bytes of one object, from the cache if it has them."""
        address = self.paths[row]
        kept = is_cached(address)
        content = self.cache.get(address) if kept else None
        if content is not None and not self._mismatch(row, content):
            return content
        try:
            content = read(address)
        except ObjectError as error:
            raise ObjectError(f"row {row}: {error}") from error
        if problem := self._mismatch(row, content):
            raise ObjectError(f"row {row}: {problem}")
        if kept:
            self.cache.put(address, content)
        return content

    def _warm(self, rows: Sequence[int]) -> dict[int, bytes]:
        """Put what one try can read into the cache, and return the small ones; :meth:`_content` reads the others."""
        small: dict[int, bytes] = {}
        addresses = [self.paths[row] for row in rows]
        for row, address, content in zip(rows, addresses, read_together(addresses), strict=True):
            if content is not None and not self._mismatch(row, content):
                self.cache.put(address, content)
                if len(content) <= SMALL:
                    small[row] = content
        return small

    def _mismatch(self, row: int, content: bytes) -> str:
        """Compare a content with its checksum; empty if they agree, or there is none."""
        expected = self._checksum(row)
        got = _HASHES[len(expected)](content).hexdigest() if expected else ""
        return "" if got == expected else f"expected the checksum {expected}, got {got}"

    def _checksum(self, row: int) -> str:
        return "" if self.checksums is None else self.checksums[row].lower()

    @cached_property
    def _checked(self) -> tuple[list[str], Hashes]:
        """Objects that are missing or empty, or whose listed MD5 is not that of the table, and hashes of the checksums.

        None is read. A hash is 0 where neither the table nor the listing has a checksum. Copies of changed objects are
        removed.
        """
        hashes, bad = np.zeros(len(self.paths), dtype=np.int64), []
        for row, found in enumerate(list_objects(self.paths)):
            expected, problem = self._checksum(row), found.problem
            if not problem and found.md5 and len(expected) == len(found.md5) and found.md5 != expected:
                problem = f"expected the checksum {expected}, the listing has {found.md5}"
            if problem:
                bad.append(f"{self.name_of(row)} (row {row}: {problem})")
            hashes[row] = int((expected or found.md5)[:15] or "0", 16)
            self.cache.discard_changed(self.paths[row], found.size, found.changed)
        if unknown := int((hashes == UNKNOWN).sum()):
            rank_zero_info(
                f"data: equal content is not found among {unknown:,} objects whose checksum neither the table nor the "
                "listing has"
            )
        return listed("objects that cannot be used", bad), hashes

    @override
    def show(self, ids: Sequence[int]) -> list[Image.Image | str]:
        """Return the images as pictures; the name of an image that cannot be read.

        Args:
            ids: Samples.
        """
        self.prefetch(int64_ids(ids))
        return super().show(ids)

    @override
    def name_of(self, row: int) -> str:
        """Return the address of one image, without a query."""
        return shown(self.paths[row])
