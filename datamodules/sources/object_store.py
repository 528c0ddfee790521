"""Access to object stores: file systems, reads with retries, and listings.

Legend: N = objects.
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar

from datamodules.messages import reason_of
from datamodules.sampling.dataset import StoreError
from datamodules.sources.addresses import EXTRAS, HTTP, check_address, parent, protocols, shown
from datamodules.sources.paths import ManyPaths
from metric_module.errors import UserError

T = TypeVar("T")

THREADS = 32
"""Requests at a time in each process."""
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between two tries of a request."""
TIMEOUT = 60
"""Seconds after which a try has failed."""

_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_opened: dict[tuple[int, str, str], Any] = {}
"""File systems by process, because none survives a fork."""


class ObjectError(OSError):
    """An object that cannot be used, with the reason."""


class Listed(NamedTuple):
    """An object in a listing.

    Attributes:
        problem: Why it cannot be used; empty if it can be.
        size: Bytes; None: unknown.
        changed: Time of the last change in seconds since 1970; None: unknown.
        md5: MD5 of the content, hexadecimal; empty: unknown.
    """

    problem: str
    size: int | None = None
    changed: float | None = None
    md5: str = ""


def file_system(address: str) -> tuple[Any, str]:
    """Return the file system of an address, one for each process, and the path of the object in it.

    Args:
        address: The address.

    Raises:
        UserError: Its protocol is not supported, or a package is missing.
    """
    from fsspec.core import url_to_fs

    head, _, container = address.partition("::")
    key = os.getpid(), protocols(address)[0], container
    if key not in _opened:
        check_address(address)
        try:
            _opened[key] = url_to_fs(address, use_listings_cache=False)[0]
        except ImportError:
            extra = next(EXTRAS[name] for name in protocols(address) if name in EXTRAS)
            message = f"{shown(address)}: pip install 'lightning-triplets[{extra}]' to read such addresses"
            raise StoreError(message) from None
    return _opened[key], _opened[key]._strip_protocol(head)


def read(address: str) -> bytes:
    """Read an object, with retries.

    Args:
        address: The address.

    Raises:
        ObjectError: It is missing, or must not be read.
        StoreError: The store does not answer.
    """

    def once() -> bytes:
        """Read it in one try."""
        system, path = file_system(address)
        content: bytes = system.cat_file(path, **({"timeout": TIMEOUT} if system.async_impl else {}))
        return content

    return retried(once, address)


def retried(action: Callable[[], T], address: str) -> T:
    """Call a function until it succeeds, at most six times, with doubling waits.

    Args:
        action: The function.
        address: What it reads, for messages.

    Raises:
        ObjectError: The object is missing, or must not be read; there is no second try.
        StoreError: The last try failed too.
    """
    for wait in (*WAITS, None):
        try:
            return action()
        except UserError:
            raise
        except Exception as error:  # each kind of store raises its own
            if (final := _final_reason(error)) is not None:
                raise ObjectError(final) from error
            if wait is None:
                reason = reason_of(error).replace(address, shown(address))
                raise StoreError(
                    f"data: cannot read {shown(address)} after {len(WAITS) + 1} tries in {sum(WAITS):.0f} seconds or "
                    f"more, the last: {reason}"
                ) from error
        time.sleep(wait)
    raise AssertionError


def _final_reason(error: BaseException) -> str | None:
    """Say why another try would fail too; None if it might succeed."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500 and status not in {408, 429}:
        return "no such object" if status in {404, 410} else f"HTTP status {status}"
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and cause is not None and type(cause).__module__.startswith("aiohttp"):
        return _final_reason(cause)  # fsspec's HTTP file system reports every failure as a missing file
    if isinstance(error, FileNotFoundError | KeyError | IsADirectoryError | NotADirectoryError):
        return "no such object"
    return f"access denied: {reason_of(error)}" if isinstance(error, PermissionError) else None


def find(folder: str) -> list[str]:
    """List the addresses of all objects below a folder; over HTTP, of all that its pages link to.

    Args:
        folder: Address of the folder.

    Raises:
        StoreError: The store does not answer.
    """
    head, mark, container = folder.partition("::")
    system, path = file_system(folder)
    try:
        names = retried(lambda: list(system.find(path)), folder)
    except ObjectError:
        return []
    scheme = "" if protocols(folder)[0] in HTTP else f"{head.partition('://')[0]}://"
    return [f"{scheme}{name.lstrip('/') if scheme else name}{mark}{container}" for name in names]


def list_objects(addresses: ManyPaths) -> list[Listed]:
    """Look up objects without reading them: in the listing of their folders, or over HTTP by a request for each.

    Args:
        addresses: The objects, N.

    Returns:
        What is known about each, N.

    Raises:
        StoreError: The store does not answer.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row in range(len(addresses)):
        address = addresses[row]
        groups[address if protocols(address)[0] in HTTP else parent(address)].append(row)
    found = [Listed("no such object")] * len(addresses)
    with ThreadPoolExecutor(THREADS) as pool:
        for rows, listing in zip(groups.values(), pool.map(_list, groups), strict=True):
            for row in rows:
                found[row] = listing.get(file_system(addresses[row])[1], found[row])
    return found


def _list(address: str) -> Mapping[str, Listed]:
    """List a folder, or over HTTP one object, by path."""
    system, path = file_system(address)
    by_request = protocols(address)[0] in HTTP
    try:
        found = retried(lambda: [system.info(path)] if by_request else system.ls(path, detail=True), address)
    except ObjectError as error:
        return {path: Listed(str(error))}
    return {info["name"]: _listed(info) for info in found if info["type"] == "file"}


def _listed(info: Mapping[str, Any]) -> Listed:
    """Read the entry of a listing; each kind of store has its own keys."""
    size = info.get("size")
    when = info.get("LastModified") or info.get("updated") or info.get("Last-Modified")
    if isinstance(when, str):
        when = datetime.fromisoformat(when) if when[:1].isdigit() else parsedate_to_datetime(when)
    encoded = info.get("md5Hash") or info.get("Content-MD5")  # Google's and HTTP's
    md5 = base64.b64decode(encoded).hex() if encoded else ""
    if "LastModified" in info and (tag := _MD5.fullmatch(str(info.get("ETag")))):
        md5 = tag[1]  # S3's, of objects that were uploaded in one part
    return Listed("" if size != 0 else "0 bytes", size, when.timestamp() if when else None, md5)
