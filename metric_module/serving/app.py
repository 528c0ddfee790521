"""A trained encoder behind HTTP: requests are read up to fixed limits, and answered with JSON or one page.

Legend: N = items of a request, k = neighbours of each, D = embedding size.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from metric_module.errors import UserError
from metric_module.inference import Embedder
from metric_module.inference.index import EmbeddingIndex
from metric_module.preprocessing.reading import read_square
from metric_module.serving.queue import BatchQueue, RefusedError
from metric_module.storage.atomic import without_nan

MAX_BYTES, MAX_PIXELS, MAX_TEXT, MAX_ITEMS, MAX_NEIGHBOURS = 32 * 2**20, 40_000_000, 100_000, 64, 100
"""Limits: bytes of a request, pixels of an image, bytes of a text, items of a request, neighbours of an item."""

# Formats that begin with a mark of their own. Pillow knows more; for one of them it would start another program.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_HERE = Path(__file__).parent
_FILES = {"/": "page.html", "/page.js": "page.js", "/serve.css": "serve.css", "/page.css": "../report/page.css"}
_POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
_HEADERS = {"Content-Security-Policy": f"{_POLICY}base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}
_SIDE = 160  # of a picture of the gallery, in pixels


class Server:
    """Answers of a trained encoder to HTTP requests.

    Args:
        embedder: The encoder.
        index: The gallery, or None.
        pictures: Image files of the gallery by position; empty if they are not known.

    Raises:
        UserError: If the training did not define how an item becomes an encoder input.
    """

    def __init__(self, embedder: Embedder, index: EmbeddingIndex | None = None, pictures: Sequence[Path] = ()) -> None:
        if embedder.preprocessing is None:
            raise UserError("serve: the training did not define how an item becomes an encoder input")
        self._kind = embedder.preprocessing.kind
        self._embedder, self._index, self._pictures = embedder, index, pictures
        self._threshold = embedder.threshold if index is None else index.threshold
        self._named = [] if index is None else [*zip(index.names, index.labels, strict=True)]
        self._queue = BatchQueue(embedder, self._read)

    def application(self, hosts: Sequence[str] = ("*",)) -> Any:
        """Build the ASGI application.

        Args:
            hosts: Names of this machine that a request may use. Otherwise a page in a browser could reach a server of
                this machine through a name of its own.
        """
        from starlette import applications, exceptions, middleware, requests
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.responses import FileResponse, JSONResponse, Response
        from starlette.routing import Route

        routes = [
            *(Route(path, lambda _, at=at: FileResponse(_HERE / at, headers=_HEADERS)) for path, at in _FILES.items()),
            Route("/health", lambda _: JSONResponse(self._health())),
            Route("/item/{place}", lambda one: Response(self._picture(**one.path_params), media_type="image/jpeg")),
            *(Route(f"/{name}", self._answer, methods=["POST"]) for name in ("embed", "search", "identify", "same")),
        ]
        failures = (UserError, exceptions.HTTPException, requests.ClientDisconnect, Exception)
        trusted = middleware.Middleware(TrustedHostMiddleware, [*hosts])
        return applications.Starlette(False, routes, [trusted], dict.fromkeys(failures, _failed))

    async def _answer(self, request: Any) -> Any:
        """Answer what was posted."""
        from starlette.responses import JSONResponse

        name, options = request.url.path[1:], dict(request.query_params)
        k = _integer("k", options.pop("k", "10") if name == "search" else "1", 1, MAX_NEIGHBOURS)
        if options:
            raise RefusedError(f"unknown option {min(options)[:40]!r}; allowed: k, for /search")
        if name in {"search", "identify"} and self._index is None:
            raise RefusedError("no gallery: start with gallery=<folder of images, or file of task=embed>", 404)
        if name in {"identify", "same"} and self._threshold is None:
            raise RefusedError("no threshold: neither the training nor the gallery has one", 404)
        embeddings = await self._queue.embed(await self._items(request, 2 if name == "same" else 1))  # (N, D)
        return JSONResponse(await asyncio.to_thread(self._result, name, embeddings, k))

    def _result(self, name: str, embeddings: Tensor, k: int) -> dict[str, Any]:
        """Return the answer to a request by its embeddings ``(N, D)``."""
        index: Any = self._index
        if name == "embed":
            return {"embeddings": embeddings.tolist()}
        if name == "same":
            distance = float(self._embedder.distance(embeddings[:1], embeddings[1:]))
            return {"same": self._is_near(distance), "distance": distance, "threshold": self._threshold}
        if name == "identify":
            return {"labels": index.identify(embeddings)}
        found = index.search(embeddings, k)
        rows = zip(found.positions.tolist(), found.distances.tolist(), strict=True)
        near = [[self._neighbour(*one) for one in zip(*row, strict=True)] for row in rows]
        return {"threshold": self._threshold, "neighbours": near}

    def _neighbour(self, position: int, distance: float) -> dict[str, Any]:
        name, label = self._named[position]
        within = self._is_near(distance)
        return {"position": position, "name": name, "label": label, "distance": distance, "within_threshold": within}

    def _is_near(self, distance: float) -> bool | None:
        return None if self._threshold is None else distance <= self._threshold

    def _health(self) -> dict[str, Any]:
        """Return what is served; a figure that is not a number is null."""
        figures = without_nan(self._embedder.figures)
        about = {"status": "ok", "takes": self._kind, "items": len(self._named), "pictures": bool(self._pictures)}
        return {**about, "threshold": self._threshold, "figures": figures}

    def _picture(self, place: str) -> bytes:
        """Return the central square of a picture of the gallery as a small JPEG."""
        file, position = io.BytesIO(), _integer("item with a picture", place, 0, len(self._pictures) - 1, 404)
        read_square(self._pictures[position], _SIDE).resize((_SIDE, _SIDE)).save(file, "JPEG")
        return file.getvalue()

    async def _items(self, request: Any, least: int) -> list[Any]:
        """Read the items of a request: images as a body or as files of a form, everything else as JSON."""
        mime = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        expected = ("image/", "multipart/form-data") if self._kind == "image" else ("application/json",)
        if not mime.startswith(expected):
            raise RefusedError(f"content type: expected {' or '.join(expected)}, got {mime[:40]!r}", 415)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                raise RefusedError(f"expected at most {MAX_BYTES:,} bytes, got more", 413)
        request._body = bytes(body)  # Starlette reads forms and JSON from there
        items = await _read_body(request, mime, "texts" if self._kind == "text" else "inputs")
        if not least <= len(items) <= (least if least > 1 else MAX_ITEMS):
            raise RefusedError(f"expected {'two' if least > 1 else f'1 to {MAX_ITEMS}'} items, got {len(items)}")
        return items

    def _read(self, items: Sequence[Any]) -> list[Any]:
        """Read items as encoder inputs; the first that cannot be read is named."""
        inputs: list[Any] = []
        try:
            for item in items:
                self._check(item)
                inputs.append(self._embedder.read(item))
        except Exception as error:  # Pillow raises many kinds
            large = isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning)
            reason = f"more than {MAX_PIXELS:,} pixels" if large else type(error).__name__
            reason = str(error) if isinstance(error, UserError) else f"cannot be read ({reason})"
            raise RefusedError(f"item {len(inputs)}: {reason}", 413 if large else 400) from None
        return inputs

    def _check(self, item: Any) -> None:
        """Reject an image or a text that is too large to be read, and content that is no image."""
        if self._kind == "image":
            with Image.open(io.BytesIO(item), formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
        elif isinstance(item, str) and len(item.encode()) > MAX_TEXT:  # a lone surrogate cannot be encoded
            raise UserError(f"expected at most {MAX_TEXT:,} bytes of text")


async def _read_body(request: Any, mime: str, key: str) -> list[Any]:
    """Return the items in a body: the body itself, the files of a form, or the list of a JSON object with one key."""
    if mime.startswith("image/"):
        return [await request.body()]
    if mime == "multipart/form-data":
        if not (await request.body()).rstrip().endswith(b"--"):
            raise RefusedError("the form has no end: it was cut off")
        async with request.form(max_files=MAX_ITEMS, max_fields=0) as form:
            return [await file.read() for _, file in form.multi_items()]
    try:
        [(name, items)] = (await request.json()).items()
    except (ValueError, RecursionError, AttributeError):
        name, items = "", None
    if name != key or not isinstance(items, list):
        raise RefusedError(f'expected JSON {{"{key}": [...]}}')
    return items


def _integer(name: str, text: str, least: int, most: int, status: int = 400) -> int:
    if not (text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
        raise RefusedError(f"{name}: expected an integer from {least} to {most}, got {text[:40]!r}", status)
    return int(text)


async def _failed(request: Any, error: Exception) -> Any:
    """Answer with one line; of a bug, the trace is printed by the server alone."""
    from starlette.responses import JSONResponse

    status = getattr(error, "status_code", 400 if isinstance(error, UserError) else 500)
    line = "internal error, printed by the server" if status == 500 else getattr(error, "detail", None) or str(error)
    # Closing stops a client that is still sending a body that is too large.
    return JSONResponse({"error": line}, status, {"Connection": "close"} if status == 413 else None)
