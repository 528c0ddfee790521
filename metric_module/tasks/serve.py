"""Serve a trained encoder over HTTP: the task ``serve``."""

from __future__ import annotations

import socket
from pathlib import Path

from omegaconf import DictConfig

from metric_module.errors import UserError
from metric_module.inference.items import find_gallery
from metric_module.serving.app import Server
from metric_module.tasks.trained_model import load_model


def serve(cfg: DictConfig) -> dict[str, float]:
    """Serve the encoder ``cfg.ckpt_path`` on ``cfg.port`` (None: 8000) of ``cfg.task.host``, until Ctrl-C.

    Args:
        cfg: The composed configuration. ``cfg.gallery`` is a gallery of :mod:`metric_module.inference.items`, or None;
            ``cfg.task.tower`` names one encoder of several.

    Returns:
        Nothing: ``{}``.

    Raises:
        UserError: If a package is missing, the port is in use, or the encoder or the gallery cannot be read.
    """
    try:
        import python_multipart  # noqa: F401  # by which Starlette reads forms
        import starlette  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        raise UserError(f"serve: needs {error.name}; pip install 'lightning-triplets[serve]'") from None
    with listen(cfg.task.host, 8000 if cfg.port is None else cfg.port) as listener:  # before anything that takes time
        cfg, embedder = load_model(cfg)
        index = None if cfg.gallery is None else find_gallery(cfg.gallery, embedder)
        shown = index is not None and Path(cfg.gallery).is_dir()  # a file could name any picture of this machine
        server = Server(embedder, index, [Path(name) for name in index.names] if index is not None and shown else [])
        local = ["127.0.0.1", "localhost"]
        app = server.application(local if cfg.task.host in local else ["*"])
        print(f"http://{cfg.task.host}:{listener.getsockname()[1]}/ takes requests; Ctrl-C stops", flush=True)
        config = uvicorn.Config(app, log_config=None, access_log=False, limit_concurrency=128, ws="none")
        uvicorn.Server(config).run(sockets=[listener])
    return {}


def listen(host: str, port: int) -> socket.socket:
    """Open a port.

    Args:
        host: Address of this machine.
        port: The port; 0 is any free one.

    Raises:
        UserError: If it is out of range or in use.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"port: expected an integer from 0 (any free port) to 65535, got {port}")
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise UserError(f"port: cannot listen on {host}:{port} ({error.strerror}); give port=<another>") from None
    # Otherwise an answer in two parts waits 40 ms for an acknowledgement: asyncio sets this on its own sockets alone.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
