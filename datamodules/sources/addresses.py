"""Addresses of objects, as fsspec writes them: ``s3://bucket/a.png``, ``zip://a.png::s3://bucket/pictures.zip``."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from metric_module.errors import UserError

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Extra of this package that a protocol needs, if any."""
HTTP = ("http", "https")
_LOCAL = ("file", "memory")
# A table may name any address, and some of fsspec's other protocols start programs or fill in templates.
_ALLOWED = (*EXTRAS, *HTTP, *_LOCAL, "zip")


ADDRESS = r"^[A-Za-z][A-Za-z0-9+.-]*://"
"""Start of an address; PyArrow reads it too."""


def is_address(path: str) -> bool:
    """Return whether a path is an address: ``s3://...``.

    Example:
        >>> is_address("s3://bucket/a.png"), is_address("pictures/a.png")
        (True, False)
    """
    return re.match(ADDRESS, path) is not None


def protocols(address: str) -> list[str]:
    """List the protocol of each link of an address, that of the outermost container last.

    Example:
        >>> protocols("zip://a.png::s3://bucket/pictures.zip")
        ['zip', 's3']
    """
    return [link.partition("://")[0].lower() if "://" in link else "file" for link in address.split("::")]


def check_address(address: str) -> None:
    """Accept an address of a protocol that is supported.

    Args:
        address: The address.

    Raises:
        UserError: It has another protocol.
    """
    others = [name for name in protocols(address) if name not in _ALLOWED]
    if others:
        raise UserError(f"{shown(address)}: expected s3://, gs://, http://, https:// or zip://, got {others[0]}://")


def is_cached(address: str) -> bool:
    """Return whether the content is worth a copy on the local disk: that of a local archive is not."""
    return protocols(address)[-1] not in _LOCAL


def join(folder: str, name: str) -> str:
    """Append a relative path to the address of a folder; an address stays as it is.

    Example:
        >>> join("zip://pictures::s3://bucket/all.zip", "a.png")
        'zip://pictures/a.png::s3://bucket/all.zip'
    """
    if is_address(name):
        return name
    head, mark, container = folder.partition("::")
    name = quote(name) if protocols(folder)[0] in HTTP else name
    return f"{head}{'' if head.endswith('/') else '/'}{name}{mark}{container}"


def parent(address: str) -> str:
    """Return the address of the folder that an object is in; for a path, that of the folder.

    Example:
        >>> parent("s3://bucket/pictures/a.png"), parent("zip://a.csv::all.zip"), parent("pictures/a.png")
        ('s3://bucket/pictures', 'zip://::all.zip', 'pictures')
    """
    if not is_address(address):
        return str(Path(address).parent)
    head, mark, container = address.partition("::")
    folder = head.rpartition("/")[0]
    return f"{folder + '/' if folder.endswith('/') else folder}{mark}{container}"


def inside(address: str) -> str:
    """Return the first link of an address, the file in its container: ``zip://a.png``; a path stays as it is."""
    return address.partition("::")[0] if is_address(address) else address


def suffix_of(address: str) -> str:
    """Return the extension of the file that an address or a path names, in lower case."""
    return PurePosixPath(inside(address)).suffix.lower()


def shown(text: str) -> str:
    """Return an address, or a message with one, without the query of a signed address, which works as a password.

    Example:
        >>> shown("zip://a.png::https://host/all.zip?signature=1")
        'zip://a.png::https://host/all.zip'
    """
    return re.sub(r"(https?://[^?]*)\?.*?(?=::|$)", r"\1", text, flags=re.DOTALL)
