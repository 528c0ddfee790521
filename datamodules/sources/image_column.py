"""Images whose paths or addresses are in a column of a table.

Legend: N = rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.checks import check_folder
from datamodules.messages import rows_in_words
from datamodules.sources.addresses import ADDRESS, is_address
from datamodules.sources.columns import Strings, is_text, value_type
from datamodules.sources.images import DecodedImages, ImageFiles
from datamodules.sources.object_images import ObjectImages
from metric_module.config.secrets import USER
from metric_module.errors import UserError

_CHECKSUM = "^([0-9a-fA-F]{32}|[0-9a-fA-F]{64}|)$"


def images_of(
    column: pa.ChunkedArray,
    where: str,
    folder: str,
    image_size: int,
    cache_dir: str | None = None,
    cache_gb: float = 10.0,
    checksums: Strings | None = None,
) -> DecodedImages:
    """Make the source of a column: of files, or of objects where the folder or the values are addresses.

    Args:
        column: Strings, N.
        where: Name of the column, for messages.
        folder: Folder, or its address, to which paths are relative.
        image_size: See :class:`datamodules.sources.images.ImageFiles`.
        cache_dir: See :class:`datamodules.sources.object_images.ObjectImages`.
        cache_gb: See there.
        checksums: See there.

    Raises:
        UserError: The folder does not exist, only some values are addresses, one holds a user name or a password, or
            files on disk have checksums.
    """
    remote = pc.match_substring_regex(column, ADDRESS)
    if not is_address(folder) and not pc.any(remote).as_py():
        if checksums is not None:
            raise UserError("datamodule.checksum: expected images in an object store; files are read before training")
        check_folder(Path(folder), "datamodule.root")
        return ImageFiles(Strings(column, folder), image_size, cache_dir)
    if not is_address(folder) and not pc.all(remote).as_py():
        rows = np.flatnonzero(~remote.to_numpy())
        raise UserError(f"{where}: expected addresses (s3://...) in all rows or in none, got {rows_in_words(rows)}")
    named = np.flatnonzero(pc.match_substring_regex(column, USER.pattern).to_numpy())
    if len(named):
        raise UserError(f"{where}: expected addresses without user name and password, got {rows_in_words(named)}")
    names = Strings(column, folder if is_address(folder) else None)
    return ObjectImages(names, image_size, cache_dir, cache_gb, checksums)


def checksums_of(column: pa.ChunkedArray, where: str) -> Strings:
    """Read a column of checksums, empty where there is none.

    Args:
        column: MD5 or SHA-256, hexadecimal, N.
        where: Name of the column, for messages.

    Raises:
        UserError: A value is neither.
    """
    if not is_text(value_type(column.type)):
        raise UserError(f"{where}: expected strings, got {value_type(column.type)}")
    filled = pc.fill_null(column.cast(pa.string()), "")
    bad = np.flatnonzero(~pc.match_substring_regex(filled, _CHECKSUM).to_numpy())
    if len(bad):
        raise UserError(f"{where}: expected MD5 or SHA-256, 32 or 64 hexadecimal digits, got {rows_in_words(bad)}")
    return Strings(filled)
