"""Listings of object stores: what is known of objects that are not read.

Legend: N = objects.
"""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from datamodules.sources.addresses import HTTP, parent, protocols
from datamodules.sources.background import start
from datamodules.sources.object_store import ObjectError, file_system, retried
from datamodules.sources.paths import ManyPaths

_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


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


def find(folder: str) -> list[str]:
    """List the addresses of all objects below a folder; over HTTP, of all that its pages link to.

    Args:
        folder: Address of the folder.

    Raises:
        StoreError: The store does not answer.
    """
    head, mark, container = folder.partition("::")
    try:
        names = retried(lambda system, path: list(system.find(path)), folder)
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
    listings = [start(_list, group) for group in groups]
    try:
        for rows, listing in zip(groups.values(), listings, strict=True):
            if entries := listing.result():
                for row in rows:
                    found[row] = entries.get(file_system(addresses[row])[1], found[row])
    finally:
        for listing in listings:
            listing.cancel()
    return found


def _list(address: str) -> Mapping[str, Listed]:
    """List a folder, or over HTTP one object, by path; nothing if there is no such object."""
    by_request = protocols(address)[0] in HTTP
    try:
        found = retried(
            lambda system, path: [system.info(path)] if by_request else system.ls(path, detail=True), address
        )
    except ObjectError:
        return {}
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
