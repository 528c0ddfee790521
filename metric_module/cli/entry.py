"""The command line: runs a task, and turns a user's mistake into one line and an exit code.

Heavy imports happen inside the task, so that a mistake on the command line is answered at once.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_method
from omegaconf import DictConfig

from metric_module.cli.resume import with_resume
from metric_module.config import conf_folder
from metric_module.config.checks import checked
from metric_module.config.inheritance import import_from, passed_on
from metric_module.config.messages import explain, one_line
from metric_module.config.renamed import rename_targets
from metric_module.config.schema import register
from metric_module.config.trust import check_configuration, check_found, check_task, check_words, remember
from metric_module.storage.folders import forget_refused
from metric_module.sweeps.job import run_apart
from metric_module.sweeps.lifecycle import finish_sweep, leave_sweep
from metric_module.sweeps.process import follow
from metric_module.sweeps.resume import with_resume_sweep

REFUSED = 2
_CONFIG_PATH = ("--config-path", "-cp")


def main() -> int:
    """Run the command line: what ``lightning-triplets``, ``python -m metric_module`` and ``python run.py`` call.

    Returns:
        The exit code.
    """
    return run(compose_and_run)


def run(main: Callable[[], Any]) -> int:
    """Call Hydra's ``main``; a mistake in the command line or the configuration is one line and exit code 2.

    Args:
        main: What ``hydra.main`` made.

    Returns:
        The exit code.
    """
    follow()
    import_from(Path.cwd())
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, instead of printing its own report
    remember(sys.argv[1:])
    with passed_on():
        return _run(main)


def _run(main: Callable[[], Any]) -> int:
    try:
        sys.argv[1:] = _with_config_path(with_resume(with_resume_sweep(sys.argv[1:])))
        with _looking_at_names():
            main()
        return finish_sweep()
    except Exception as error:
        message = explain(error)
        if _wants_traces() or (message is None and _is_from_a_job(error)):
            raise
        print(f"error: {message or one_line(error)}", file=sys.stderr)
        return REFUSED
    finally:
        leave_sweep()


def _with_config_path(words: list[str]) -> list[str]:
    """Make a relative ``--config-path`` one of the current folder; Hydra takes it as one of this package's."""
    made = list(words)
    for position, word in enumerate(words):
        flag, equals, path = word.partition("=")
        if equals and flag in _CONFIG_PATH:
            made[position] = f"{flag}={_absolute(path)}"
        elif position and words[position - 1] in _CONFIG_PATH:
            made[position] = _absolute(word)
    return made


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())


@contextmanager
def _looking_at_names() -> Iterator[None]:
    """Check each configuration as Hydra composes it: it calls parts of its own before the task could look at them."""
    compose = ConfigLoaderImpl.load_configuration

    def checked(*arguments: Any, **options: Any) -> DictConfig:
        """Check, compose and check."""
        check_words(list(options.get("overrides", arguments[2] if len(arguments) > 2 else [])))
        cfg = compose(*arguments, **options)
        rename_targets(cfg)
        check_configuration(cfg)
        return cfg

    ConfigLoaderImpl.load_configuration = checked  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = compose  # type: ignore[method-assign]


def job(cfg: DictConfig) -> float | None:
    """Run the task that the configuration names; in a sweep, in a process of its own.

    Args:
        cfg: The composed configuration.

    Returns:
        The figure ``cfg.monitor``, or None if there is none.

    Raises:
        SystemExit: With code 2 after a mistake of the user's.
    """
    settings = HydraConfig.get()
    if settings.mode == RunMode.MULTIRUN:
        return run_apart(cfg, settings)
    try:
        with checked(cfg):
            check_task(cfg.task._target_)
            task = get_method(cfg.task._target_)
            check_found("task._target_", cfg.task._target_, task)
            logging.getLogger("lightning").handlers.clear()  # Hydra's handlers print and keep what it says
            figures: Mapping[str, float] = task(cfg)
    except Exception as error:
        message = explain(error)
        if message is None or cfg.debug:
            raise
        forget_refused(Path(settings.runtime.output_dir))
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(REFUSED) from None
    return figures.get(cfg.monitor)


register()


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def compose_and_run(cfg: DictConfig) -> float | None:
    """Run the task of the configuration and return the monitored figure, for a sweep."""
    return job(cfg)


def _wants_traces() -> bool:
    """Whether the command line asks for stack traces; the configuration may not exist yet."""
    return "debug=true" in [word.lower() for word in sys.argv[1:]]


def _is_from_a_job(error: BaseException) -> bool:
    """Whether a task had started: before that, whatever Hydra raises is about the command line or a yaml."""
    return any(frame.f_code.co_name == "run_job" for frame, _ in traceback.walk_tb(error.__traceback__))
