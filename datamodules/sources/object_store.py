"""Access to object stores: file systems, and reads with retries."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from datamodules.messages import reason_of
from datamodules.sampling.dataset import StoreError
from datamodules.sources.addresses import EXTRAS, check_address, protocols, shown
from metric_module.errors import UserError

T = TypeVar("T")

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between two tries of a request."""
TIMEOUT = 60
"""Seconds after which a try has failed."""

_opened: dict[tuple[int, str, str], Any] = {}
"""File systems by process, because none survives a fork."""


class ObjectError(OSError):
    """An object that cannot be used, with the reason."""


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
        ObjectError: There is no such object.
        StoreError: The store does not answer, or denies access.
    """
    return retried(_read_once, address)


def read_together(addresses: Sequence[str]) -> list[bytes | None]:
    """Read objects side by side, with one try; None in place of those that failed.

    One wait for many requests costs a third of the processor time of a thread for each.

    Args:
        addresses: The addresses, N.

    Raises:
        StoreError: A package is missing.
    """
    from fsspec.asyn import get_loop, sync

    try:
        places = [file_system(address) for address in addresses]
        if all(system.async_impl for system, _ in places):
            return [
                content if isinstance(content, bytes) else None
                for content in sync(get_loop(), _gather, places, timeout=TIMEOUT)
            ]
        return [_read_once(*place) for place in places]
    except UserError:
        raise
    except Exception:  # the caller reads them one by one, with retries, and says what is wrong
        return [None] * len(addresses)


async def _gather(places: Sequence[tuple[Any, str]]) -> list[Any]:
    return await asyncio.gather(*(system._cat_file(path) for system, path in places), return_exceptions=True)


def _read_once(system: Any, path: str) -> bytes:
    content: bytes = system.cat_file(path, **({"timeout": TIMEOUT} if system.async_impl else {}))
    return content


def retried(action: Callable[[Any, str], T], address: str) -> T:
    """Call a function until it succeeds, at most six times, with doubling waits.

    Args:
        action: The function, of a file system and a path in it.
        address: The address of both; to open the file system of an archive is a request too.

    Raises:
        ObjectError: There is no such object; there is no second try.
        StoreError: Access is denied, or the last try failed too.
    """
    for wait in (*WAITS, None):
        try:
            return action(*file_system(address))
        except UserError:
            raise
        except Exception as error:  # each kind of store raises its own
            reason, again = _judge(error)
            if not reason:
                raise ObjectError("no such object") from None  # the context may hold the query of a signed address
            if not again or wait is None:
                tries = f" after {len(WAITS) + 1} tries in {sum(WAITS):.0f} seconds or more, the last" if again else ""
                raise StoreError(f"data: cannot read {shown(address)}{tries}: {shown(reason)}") from None
        time.sleep(wait)
    raise AssertionError


def _judge(error: Exception) -> tuple[str, bool]:
    """Return the reason of a failure, empty for a missing object, and whether another try might succeed."""
    from aiohttp import ClientError

    status, cause = getattr(error, "status", None), error.__cause__
    if isinstance(status, int) and 400 <= status < 500 and status not in {408, 429}:
        return "" if status in {404, 410} else f"HTTP status {status}", False
    if isinstance(error, FileNotFoundError | KeyError | IsADirectoryError | NotADirectoryError):
        if isinstance(cause, TimeoutError | ClientError):
            return _judge(cause)  # fsspec's HTTP file system reports every failure as a missing file
        return "", False
    return reason_of(error), not isinstance(error, PermissionError)
