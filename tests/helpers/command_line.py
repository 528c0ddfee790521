"""The command line called inside the process of the tests, which has torch already."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from datamodules.emoji.datamodule import read_images
from metric_module.cli import main

Command = Callable[..., int]

MY_ENCODERS = Path(__file__).with_name("my_encoders.py").read_text()

read_images_once = functools.cache(read_images)


def command_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Call the program as ``python run.py`` from a folder, and return the exit code: ``command("margin=0.1")``."""

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["run.py", *words])
        monkeypatch.setattr(sys, "orig_argv", ["python", "run.py", *words])
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.chdir(folder)
        monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # undone too: the next test was not started by Hydra
        monkeypatch.setattr("datamodules.emoji.datamodule.read_images", read_images_once)
        monkeypatch.delitem(sys.modules, "my_encoders", raising=False)
        try:
            return main()
        except SystemExit as stop:
            return int(stop.code or 0)
        finally:
            for handler in [one for one in logging.root.handlers if isinstance(one, logging.FileHandler)]:
                logging.root.removeHandler(handler)  # Hydra's, of a folder that may be gone
                handler.close()

    return call
