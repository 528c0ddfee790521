"""Sources of images that are decoded when a batch needs them: files, and images stored in a column.

Legend: N = images, B = images in a batch, S = side in pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from operator import index
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from datamodules.messages import listed, reason_of
from datamodules.sampling.dataset import BadSampleError, Source, StoreError
from datamodules.sources.addresses import inside
from datamodules.sources.duplicates import UNKNOWN, Hashes
from datamodules.sources.paths import ManyPaths, cache_folder
from datamodules.sources.pictures import as_pictures
from datamodules.sources.preflight import check_images
from metric_module.preprocessing import ImageInput


class DecodedImages(Source):
    """Images by id, each decoded by :meth:`decode`.

    Args:
        image_size: S.
    """

    preprocessing: ImageInput

    def __init__(self, image_size: int) -> None:
        self.preprocessing = ImageInput(index(image_size))

    @abstractmethod
    def decode(self, row: int) -> np.ndarray:
        """Decode one image to bytes, see :meth:`metric_module.preprocessing.ImageInput.pixels`."""

    @override
    def __call__(self, ids: Tensor) -> Tensor:
        """Decode images to encoder inputs, by default float32 ``(B, 3, S, S)`` in [-1, 1].

        Args:
            ids: Samples, int64 ``(B,)``.

        Raises:
            BadSampleError: The first image that cannot be read.
        """
        squares = []
        for row in ids.tolist():
            try:
                squares.append(self.decode(row))
            except StoreError:
                raise
            except Exception as error:  # Pillow raises many kinds
                raise BadSampleError(row, f"{self.name_of(row)} ({reason_of(error)})") from error
        return self.preprocessing.inputs(squares)

    @override
    def names(self, ids: Sequence[int]) -> list[str]:
        """Return the name of each file, with the folder that it lies in.

        Args:
            ids: Samples.
        """
        return ["/".join(Path(inside(self.name_of(row))).parts[-2:]) for row in ids]

    @override
    def show(self, ids: Sequence[int]) -> list[Image.Image | str]:
        """Return the images as pictures; the name of an image that can no longer be read.

        Args:
            ids: Samples.
        """
        shown: list[Image.Image | str] = []
        for row in ids:
            try:
                shown += as_pictures(self(torch.tensor([row])))
            except BadSampleError:
                shown.append(Path(inside(self.name_of(row))).name)
        return shown


class ImageFiles(DecodedImages):
    """Image files by id.

    Args:
        paths: File of each image, N.
        image_size: S.
        cache_dir: Folder in which the preflight remembers files it has read; None: ``lightning-triplets`` in the user's
            cache folder.
        boxes: Box of each image to crop to the smallest square around it: left, top, right, bottom, int64 ``(N, 4)``;
            None: the central square.
    """

    def __init__(
        self,
        paths: ManyPaths,
        image_size: int,
        cache_dir: str | None = None,
        boxes: Tensor | None = None,
    ) -> None:
        super().__init__(image_size)
        self.paths = paths
        self.boxes = boxes
        self.cache_dir = cache_folder(cache_dir)

    @override
    def problems(self, splits: Mapping[str, Tensor]) -> list[str]:
        """Read every file once, in parallel, and again only if its size or time of change differs.

        Args:
            splits: Ids of the samples in each split, int64.
        """
        return self._checked[0]

    @override
    def contents(self) -> Hashes:
        """Hash every file, and its box, if it is cropped."""
        hashes = self._checked[1]
        if self.boxes is None:
            return hashes
        cropped = [hash((content, *box)) for content, box in zip(hashes.tolist(), self.boxes.tolist(), strict=True)]
        return np.where(hashes == UNKNOWN, UNKNOWN, np.array(cropped, dtype=np.int64))

    @cached_property
    def _checked(self) -> tuple[list[str], Hashes]:
        """Problems of the files, and the hash of each file."""
        return check_images(self.paths, self.cache_dir / "files.sqlite")

    @override
    def decode(self, row: int) -> np.ndarray:
        """Read and crop one file."""
        box = None if self.boxes is None else tuple(self.boxes[row].tolist())
        return self.preprocessing.pixels(self.paths[row], box)

    @override
    def name_of(self, row: int) -> str:
        """Return the path of one file."""
        return self.paths[row]

    @override
    def item_name(self, row: int) -> str:
        """Return the path of one file."""
        return self.name_of(row)


class StoredImages(DecodedImages):
    """Images stored in a column of a table, as the content of files or as paths.

    Args:
        column: ``{"bytes": ..., "path": ...}`` for each image, N; the path is used where there are no bytes.
        image_size: S.
    """

    def __init__(self, column: pa.ChunkedArray, image_size: int) -> None:
        super().__init__(image_size)
        self.column = column

    @override
    def problems(self, splits: Mapping[str, Tensor]) -> list[str]:
        """Decode every image once.

        Args:
            splits: Ids of the samples in each split, int64.
        """
        bad: list[str] = []
        for row in torch.cat(list(splits.values())).tolist():
            try:
                self(torch.tensor([row]))
            except BadSampleError as error:
                bad.append(error.reason)
        return listed("images cannot be read", bad)

    @override
    def contents(self) -> Hashes:
        """Hash the stored content of every image."""
        return np.array([hash(image["bytes"].as_py() or b"") for image in self.column], dtype=np.int64)

    @override
    def decode(self, row: int) -> np.ndarray:
        """Decode one image."""
        stored = self.column[row].as_py()
        return self.preprocessing.pixels(str(stored["path"]) if stored["bytes"] is None else stored["bytes"])

    @override
    def name_of(self, row: int) -> str:
        """Return the number of one row in words."""
        return f"row {row}"
