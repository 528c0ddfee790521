"""Source of images in an object store, fetched ahead of need into a cache on the local disk.

Legend: N = images, B = images in a batch, S = side in pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property, partial
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch import Tensor
from typing_extensions import override

from datamodules.messages import listed
from datamodules.sampling.dataset import StoreError, int64_ids
from datamodules.sources.addresses import inside, is_cached, shown
from datamodules.sources.columns import Strings
from datamodules.sources.duplicates import UNKNOWN, Hashes
from datamodules.sources.images import DecodedImages, cache_folder
from datamodules.sources.object_cache import GIGABYTE, ObjectCache
from datamodules.sources.object_store import THREADS, ObjectError, list_objects, read
from datamodules.sources.paths import ManyPaths

_HASHES: dict[int, Callable[[bytes], Any]] = {32: partial(hashlib.md5, usedforsecurity=False), 64: hashlib.sha256}


class ObjectImages(DecodedImages):
    """Images in an object store by id.

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
        super().__init__(image_size)
        self.paths = addresses
        self.cache = ObjectCache(cache_folder(cache_dir) / "objects", cache_gb * GIGABYTE)
        self.checksums = checksums
        # This process, its threads, and what they fetch; a content stays on disk, whatever its size.
        self._fetches: tuple[int, ThreadPoolExecutor, dict[int, Future[None]]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the threads of this process."""
        return self.__dict__ | {"_fetches": None}

    @override
    def prefetch(self, ids: Tensor) -> None:
        """Begin to fetch images into the cache, in this order; those asked for earlier and not named are forgotten.

        Args:
            ids: Samples, int64 ``(B,)``.
        """
        if self._fetches is None or self._fetches[0] != os.getpid():  # threads do not survive a fork
            self._fetches = os.getpid(), ThreadPoolExecutor(THREADS, "objects"), {}
        pid, pool, before = self._fetches
        rows = [row for row in dict.fromkeys(ids.tolist()) if is_cached(self.paths[row])]
        for row in before.keys() - set(rows):
            before.pop(row).cancel()
        kept = {row: future for row, future in before.items() if not (future.done() and future.exception())}
        self._fetches = pid, pool, {row: kept.get(row) or pool.submit(self._warm, row) for row in rows}

    @override
    def __call__(self, ids: Tensor) -> Tensor:
        """Fetch images together, and decode them as :class:`DecodedImages` does.

        Args:
            ids: Samples, int64 ``(B,)``.

        Raises:
            BadSampleError: The first image that is missing or cannot be decoded.
            StoreError: The store does not answer.
        """
        planned = {} if self._fetches is None or self._fetches[0] != os.getpid() else self._fetches[2]
        if any(row not in planned for row in ids.tolist()):
            self.prefetch(ids)
        assert self._fetches is not None
        fetched = [future for row in set(ids.tolist()) if (future := self._fetches[2].get(row)) is not None]
        for future in wait(fetched).done:
            if isinstance(error := future.exception(), StoreError):
                raise error
        return super().__call__(ids)

    @override
    def decode(self, row: int) -> np.ndarray:
        """Read and crop one image; a copy that cannot be decoded, or has another checksum, is fetched again."""
        content = self._content(row)
        try:
            return self.preprocessing.pixels(content)
        except Exception:  # Pillow raises many kinds
            self.cache.discard(self.paths[row])
            again = self._content(row)
            if again == content:
                raise
            return self.preprocessing.pixels(again)

    def _content(self, row: int) -> bytes:
        """Return the bytes of one object, from the cache if it has them."""
        address, kept = self.paths[row], is_cached(self.paths[row])
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

    def _warm(self, row: int) -> None:
        self._content(row)

    def _mismatch(self, row: int, content: bytes) -> str:
        """Compare a content with its checksum; empty if they agree, or there is none."""
        expected = self._checksum(row)
        got = _HASHES[len(expected)](content).hexdigest() if expected else ""
        return "" if got == expected else f"expected the checksum {expected}, got {got}"

    def _checksum(self, row: int) -> str:
        return "" if self.checksums is None else self.checksums[row].lower()

    @override
    def problems(self, splits: Mapping[str, Tensor]) -> list[str]:
        """List objects that are missing or empty, or whose listed MD5 is not that of the table; none is read.

        Args:
            splits: Ids of the samples in each split, int64.
        """
        return self._checked[0]

    @override
    def contents(self) -> Hashes:
        """Hash the checksum of every image, from the table or else the listing; 0 where neither has one."""
        return self._checked[1]

    @cached_property
    def _checked(self) -> tuple[list[str], Hashes]:
        """Problems of the objects, and the hash of each checksum; copies of changed objects are removed."""
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

    @override
    def names(self, ids: Sequence[int]) -> list[str]:
        """Return the name of each object, with the folder that it is in.

        Args:
            ids: Samples.
        """
        return ["/".join(inside(self.name_of(row)).split("/")[-2:]) for row in ids]

    @override
    def item_name(self, row: int) -> str:
        """Return the address of one image, without a query."""
        return self.name_of(row)
