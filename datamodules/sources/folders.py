"""Contents of folders, on disk and in an object store, behind one interface."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from datamodules.checks import check_folder
from datamodules.sources.addresses import HTTP, inside, is_address, protocols
from datamodules.sources.object_listing import find


class Object(NamedTuple):
    """An object, or a folder of objects, with the attributes of :class:`os.DirEntry`."""

    name: str
    path: str
    folder: bool

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether it is a folder."""
        return self.folder


Scan = Callable[[str], Sequence["os.DirEntry[str] | Object"]]
"""Lists a folder without hidden files and folders."""


def scan_folder(folder: str) -> Sequence[os.DirEntry[str]]:
    """List a folder on disk, without hidden files and folders."""
    with os.scandir(folder) as entries:
        return [entry for entry in entries if entry.name[0] != "."]


def open_folder(root: str) -> tuple[str, Scan]:
    """Return the name of a folder and a function that lists it and those below it.

    Args:
        root: The folder, or its address.

    Raises:
        UserError: The folder does not exist, or :func:`scan_objects` fails.
    """
    if is_address(root):
        return scan_objects(root)
    return str(check_folder(Path(root), "datamodule.root")), scan_folder


def scan_objects(root: str) -> tuple[str, Scan]:
    """List everything below an address at once, and return the name of the root and a function that lists folders.

    Args:
        root: Address of a folder.

    Raises:
        UserError: The store does not answer, or a package is missing.
    """
    top = inside(root) if inside(root).endswith("://") else inside(root).rstrip("/")
    folders: dict[str, dict[str, Object]] = {top: {}}
    for address in find(root):
        place, relative = top, inside(address)[len(top) :].strip("/")
        *parents, name = (unquote(relative) if protocols(root)[0] in HTTP else relative).split("/")
        if any(part.startswith((".", "?")) for part in (*parents, name)):  # "?": links that sort a page of links
            continue
        for part in parents:
            below = f"{place}{'' if place.endswith('/') else '/'}{part}"
            folders[place].setdefault(part, Object(part, below, True))
            folders.setdefault(below, {})
            place = below
        folders[place][name] = Object(name, address, False)
    return top, lambda folder: [*folders.get(folder, {}).values()]
