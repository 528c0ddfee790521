"""A small HTTP server in a thread: files of a folder, with failures on demand and a list of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any


class ObjectServer(ThreadingHTTPServer):
    """Server of a folder.

    Attributes:
        requests: Method and path of each request, in order.
        fail: Returns the status that a path is answered with instead, or 0.
    """

    daemon_threads = True
    request_queue_size = 64  # all connections of a client come at once

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.requests: list[str] = []
        self.fail: Callable[[str], int] = lambda path: 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def send_head(self) -> Any:
        assert isinstance(self.server, ObjectServer)
        self.server.requests.append(f"{self.command} {self.path}")
        status = self.server.fail(self.path)
        if status:
            self.send_error(status)
            return None
        return super().send_head()

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""


@contextmanager
def object_server(folder: Path) -> Iterator[ObjectServer]:
    """Serve a folder."""
    with ObjectServer(folder) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()
