"""Two nodes on one machine, for tests: network namespaces, which need Linux, root and ``ip`` of iproute2."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Node(NamedTuple):
    """How a program starts on a node."""

    prefix: tuple[str, ...]
    address: str
    device: str


@contextmanager
def two_nodes() -> Iterator[tuple[Node, Node]]:
    """Make two nodes with a virtual cable between them, or yield this machine twice where that is not possible."""
    names = tuple(f"lt-{os.getpid()}-{letter}" for letter in "ab")
    made = [_ip("netns", "add", name) for name in names if shutil.which("ip")]
    if made != [0, 0]:
        for name in names:
            _ip("netns", "del", name)
        yield Node((), "127.0.0.1", "lo"), Node((), "127.0.0.1", "lo")
        return
    try:
        assert _ip("link", "add", "node-a", "netns", names[0], "type", "veth", "peer", "node-b", "netns", names[1]) == 0
        found = []
        for name, letter, address in zip(names, "ab", ("10.77.0.1", "10.77.0.2"), strict=True):
            assert _ip("-n", name, "addr", "add", f"{address}/24", "dev", f"node-{letter}") == 0
            assert _ip("-n", name, "link", "set", "lo", "up") == _ip("-n", name, "link", "set", f"node-{letter}", "up")
            found.append(Node(("ip", "netns", "exec", name), address, f"node-{letter}"))
        yield found[0], found[1]
    finally:
        for name in names:
            _ip("netns", "del", name)


def _ip(*words: str) -> int:
    return subprocess.run(["ip", *words], check=False, capture_output=True).returncode if shutil.which("ip") else 1
