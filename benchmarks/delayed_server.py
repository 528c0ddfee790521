"""HTTP server that answers every request after a delay, as a distant object store does: ``<folder> <seconds>``.

It prints its port, answers GET and HEAD of the files below the folder, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from urllib.parse import unquote


class Delayed(asyncio.Protocol):
    """One connection, which the client uses for one request after the other."""

    def __init__(self, folder: Path, delay: float) -> None:
        self.folder = folder
        self.delay = delay
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer a request later."""
        method, path, _ = data.split(b" ", 2)
        asyncio.get_running_loop().call_later(self.delay, self._answer, method, path)

    def _answer(self, method: bytes, path: bytes) -> None:
        file = self.folder / unquote(path.decode()).strip("/")
        content = file.read_bytes() if file.is_file() else b""
        status = b"200 OK" if content else b"404 Not Found"
        head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(content))
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(head + (b"" if method == b"HEAD" else content))


async def serve(folder: Path, delay: float) -> None:
    """Serve a folder until the standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Delayed(folder, delay), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
