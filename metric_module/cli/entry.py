"""Entry of the command line: run a task, and turn a user's mistake into one line and an exit code.

Heavy imports happen inside the task, so that a mistake on the command line is answered at once.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from metric_module.cli.interrupt import interrupted, interruptible
from metric_module.cli.processes import FAILED, REFUSED, check_named, show_dead_children
from metric_module.cli.resume import with_resume
from metric_module.cli.text_encoder import with_text_encoder
from metric_module.cli.trained_parts import with_trained_parts
from metric_module.config import conf_folder
from metric_module.config.checks import checked
from metric_module.config.hydra_options import check_composed, check_words
from metric_module.config.inheritance import import_from, passed_on
from metric_module.config.messages import explain, lost_process, one_line
from metric_module.config.plain import no_nodes_from_text, plain
from metric_module.config.renamed import rename_targets
from metric_module.config.schema import register
from metric_module.config.trust import check_found, remember
from metric_module.config.words import readable
from metric_module.errors import UserError
from metric_module.storage.run_folder import claim, remove_empty
from metric_module.sweeps.job import run_apart
from metric_module.sweeps.lifecycle import finish_sweep, leave_sweep
from metric_module.sweeps.process import follow
from metric_module.sweeps.resume import with_resume_sweep

_CONFIG_PATH = ("--config-path", "-cp")
_RERUN = "--experimental-rerun"


def main() -> int:
    """Run the command line of ``lightning-triplets``, ``python -m metric_module`` and ``python run.py``.

    Returns:
        The exit code.
    """
    return run(compose_and_run)


def run(main: Callable[[], Any]) -> int:
    """Call a function under ``@hydra.main``; answer a mistake of the user with one line and exit code 2.

    Args:
        main: The decorated function.

    Returns:
        The exit code.
    """
    with interruptible():
        follow()
        import_from(Path.cwd())
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, instead of printing its own report
        remember(sys.argv[1:])
        with passed_on():
            return _run(main)


def _run(main: Callable[[], Any]) -> int:
    refused = False
    try:
        _check_options(sys.argv[1:])
        words = with_text_encoder(with_resume(with_resume_sweep(sys.argv[1:])))
        sys.argv[1:] = _with_config_path(with_trained_parts(words))
        with no_nodes_from_text(), _checked_composition():
            main()
        return finish_sweep()
    except Exception as error:
        if interrupted():
            raise
        refused = True
        message = explain(error)
        if _wants_traces() or (message is None and _is_from_a_job(error)):
            raise
        print(f"error: {message or _refusal(error)}", file=sys.stderr)
        return REFUSED
    finally:
        leave_sweep(refused)
        remove_empty()


def _check_options(words: list[str]) -> None:
    """Reject Hydra's option that unpickles a file; argparse reads abbreviations of it too."""
    for flag in (word.partition("=")[0] for word in words):
        if len(flag) > len("--") and _RERUN.startswith(flag):
            raise UserError(f"{_RERUN}: a pickle can run any code; give resume=<run>, or the options of the run")


def _with_config_path(words: list[str]) -> list[str]:
    """Resolve a relative ``--config-path`` from the current folder; Hydra would resolve it from this package."""
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
def _checked_composition() -> Iterator[None]:
    """Check each configuration as Hydra composes it, because Hydra calls parts of it before the task starts."""
    compose = ConfigLoaderImpl.load_configuration

    def checked(*arguments: Any, **options: Any) -> DictConfig:
        """Check the overrides, compose, and check the result."""
        call = signature(compose).bind(*arguments, **options)
        words = call.arguments["overrides"] = readable(call.arguments["overrides"])
        check_words(words)
        cfg = compose(*call.args, **call.kwargs)
        rename_targets(cfg)
        check_composed(cfg, words)
        if OmegaConf.select(cfg, "hydra.job.chdir"):
            raise UserError("hydra.job.chdir: the program stays in the folder where it was started; leave this out")
        return cfg

    ConfigLoaderImpl.load_configuration = checked  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = compose  # type: ignore[method-assign]


def job(cfg: DictConfig) -> float | None:
    """Run the task of a configuration; in a sweep, in a process of its own.

    Args:
        cfg: The composed configuration.

    Returns:
        The figure ``cfg.monitor``, or None if there is none.

    Raises:
        SystemExit: With code 2 after a mistake of the user, and 1 if another process of the run is gone.
    """
    settings = HydraConfig.get()
    if settings.mode == RunMode.MULTIRUN:
        return run_apart(cfg, settings)
    try:
        cfg = plain(cfg)
        check_named(settings.overrides.hydra)
        with claim(Path(cfg.output_dir), _continues(cfg)), checked(cfg):
            from metric_module.config.arguments import locate  # imported late: it imports torch

            task = locate("task._target_", cfg.task._target_)
            check_found("task._target_", cfg.task._target_, task)
            logging.getLogger("lightning").handlers.clear()  # Hydra's handlers print and store its messages
            show_dead_children()
            figures: Mapping[str, float] = task(cfg)
    except Exception as error:
        if interrupted():
            raise KeyboardInterrupt from None  # Hydra passes this on without a word
        lost = lost_process(error)
        message = lost or explain(error)
        if message is None or cfg.debug:
            raise
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(FAILED if lost else REFUSED) from None
    return figures.get(cfg.monitor)


def _continues(cfg: DictConfig) -> bool:
    """Return whether a run trains on in its own folder."""
    return bool(cfg.task.get("_target_") == "metric_module.tasks.train" and cfg.ckpt_path == "last")


register()


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def compose_and_run(cfg: DictConfig) -> float | None:
    """Run the task of the configuration and return the monitored figure, for a sweep."""
    return job(cfg)


def _wants_traces() -> bool:
    """Return whether the command line asks for stack traces; there may be no configuration yet."""
    return "debug=true" in [word.lower() for word in sys.argv[1:]]


def _is_from_a_job(error: BaseException) -> bool:
    """Return whether a task had started; before that, errors are about the command line, a yaml or the run's folder."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = [frame.f_code.co_name for frame in frames]
    if "run_job" not in names:
        return False
    inside = {frame.f_globals["__name__"].split(".")[0] for frame in frames[names.index("run_job") :]}
    return not inside <= {"hydra", "omegaconf", "pathlib", "logging"}


def _refusal(error: Exception) -> str:
    """Describe an error of Hydra before the task started."""
    if isinstance(error, OSError):
        return f"hydra.run.dir: cannot make this folder ({error.strerror}): {error.filename}; give another one"
    return one_line(error)
