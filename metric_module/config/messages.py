"""One-line messages for exceptions of Hydra, OmegaConf and this project."""

from __future__ import annotations

import errno
import re
import shlex
import traceback
from collections.abc import Iterable, Iterator
from typing import Any, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    ValidationError,
)

from metric_module.config import conf_folder
from metric_module.errors import UserError, did_you_mean, printable

INNER = {"_target_", "_partial_", "hydra", "needs_checkpoint", "reads"}
"""Keys that users do not type."""

_AMBIGUOUS = "Ambiguous value for argument "
_ABOUT_THE_CONFIGURATION = (HydraException, InterpolationResolutionError, MissingMandatoryValue)
_NOT_LOGGED = re.compile(
    r"monitor='(.+?)'.* could not find the monitored key in the returned metrics: \[(.*?)\]"
    r"|Early stopping conditioned on metric `(.+?)` which is not available\. .* any of the following: (.*)"
)
_NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation, but you set")
_LOST = re.compile(r"gloo/transport/.*|Gloo connectFullMesh failed.*|ncclRemoteError.*|NCCL communicator was aborted.*")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_LOGGERS = re.compile(r"lightning\.(pytorch|fabric)\.loggers\.")
_DETAILS = ("See https", "object_type=", "reference_type=", "provider=")


def explain(error: BaseException) -> str | None:
    """Explain a user's mistake in one line: what is wrong, where, and what is allowed.

    Args:
        error: The exception; its causes are searched too, because Hydra wraps exceptions of constructors.

    Returns:
        The line, or None if the exception is a bug, or comes from the user's own code.
    """
    chain = list(_chain(error))
    for cause in chain:
        if any(_LOGGERS.match(module) for module in _modules(cause)):
            return f"logger: {one_line(cause)}"
        if isinstance(cause, UserError) or _is_from_lightning(cause):
            return _unknown_figure(cause) or one_line(cause)
    if isinstance(error, OSError) and error.errno in _DISK:
        return f"cannot write {error.filename or 'a file of the run'} ({error.strerror})"
    if isinstance(error, MissingConfigException):
        return _unknown_option(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(str(error.override), one_line(error).split("; ")[-1])
    if str(error).startswith(_AMBIGUOUS):
        return _several_values(str(error).splitlines()[0].removeprefix(_AMBIGUOUS).strip("'"))
    if (found := _NOT_DETERMINISTIC.match(str(error))) is not None:
        return (
            f"trainer.deterministic: {found[1]} has no deterministic version on this device; "
            "give trainer.deterministic=warn to train with it and be warned"
        )
    if isinstance(error, ConfigCompositionException) and len(chain) > 1:
        return _bad_value(error, chain[-1])
    return one_line(error) if all(isinstance(cause, _ABOUT_THE_CONFIGURATION) for cause in chain) else None


def lost_process(error: BaseException) -> str | None:
    """Explain in one line that another process of the run is gone; None if the exception is about something else.

    Args:
        error: The exception.
    """
    for cause in _chain(error):
        if isinstance(cause, RuntimeError) and (found := _LOST.search(str(cause))) is not None:
            why = printable(found[0].partition(". This")[0])
            return (
                f"another process of this run has ended or cannot be reached ({why}); its own messages may say why; "
                "continue with resume=<run>"
            )
    return None


def allowed(got: str, options: Iterable[str]) -> str:
    """Suggest the closest option, and list all of them.

    Args:
        got: The name that does not exist.
        options: All names.

    Example:
        >>> allowed("margni", ["margin", "seed"])
        "did you mean 'margin'? allowed: margin, seed"
    """
    names = [str(option) for option in options]
    return f"{did_you_mean(got, names)}allowed: {', '.join(names) or 'none'}"


def one_line(error: BaseException) -> str:
    """Join the lines of an exception's message, without links, details, control characters and a worker's traceback."""
    text = str(error)
    if text.startswith("Caught ") and "Original Traceback" in text:  # torch's report, with the message at the end
        text = text.rstrip().splitlines()[-1].partition(": ")[2]
    lines = [line.strip() for line in text.split("Config search path:")[0].splitlines()]
    return printable("; ".join(line for line in lines if line and not line.startswith(_DETAILS)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _is_from_lightning(error: BaseException) -> bool:
    """Return whether Lightning itself rejects a value, such as ``trainer.val_check_interval`` when training starts."""
    kind = type(error).__name__
    raised_there = bool(modules := _modules(error)) and modules[-1].startswith("lightning.")
    return kind == "MisconfigurationException" or (raised_there and kind in {"ValueError", "RuntimeError"})


def _modules(error: BaseException) -> list[str]:
    """List the module of each frame of an exception's traceback, the innermost last."""
    return [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]


def _unknown_figure(error: BaseException) -> str | None:
    """Explain Lightning's error about a monitored figure that is never logged; None for any other error."""
    found = _NOT_LOGGED.search(str(error))
    if found is None:
        return None
    names = [name.strip("'`") for name in (found[2] or found[4]).split(", ")]
    figures = [name for name in names if name.startswith("val/")]
    return f"monitor: expected one of {', '.join(figures or names)}, got {found[1] or found[3]}"


def _unreadable(override: str, reason: str) -> str:
    """Explain an override that Hydra cannot parse, and suggest quotes where they would help."""
    key, _, value = override.partition("=")
    quoted = '{}="{}"'.format(key, value.replace('"', '\\"'))
    helps = bool(value) and not value.startswith(("[", "{", "'", '"')) and _reads(quoted, value)
    hint = f"; for a text with special characters give {shlex.quote(quoted)}" if helps else ""
    return f"cannot read {override!r}, expected key=value ({reason}){hint}"


def _reads(override: str, value: str) -> bool:
    """Return whether Hydra reads this value from an override."""
    try:
        return bool(OverridesParser.create().parse_override(override).value() == value)
    except HydraException:
        return False


def _unknown_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    options = error.options or sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
    return f"{group}={option}: unknown option; {allowed(option, options)}" if group else one_line(error)


def _several_values(override: str) -> str:
    key, _, values = override.partition("=")
    return f"{key}: expected one value, got {values}; add -m to sweep over them, or write a list as [{values}]"


def _bad_value(error: ConfigCompositionException, cause: BaseException) -> str:
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
        return _unknown_key(cause)
    if isinstance(cause, ValidationError):
        return _wrong_type(error, cause)
    return one_line(error) or one_line(cause)


def _unknown_key(error: Any) -> str:
    parent, _, key = str(error.full_key).rpartition(".")
    where = f" in {parent}" if parent else ""
    names = [str(name) for name in error.parent_node if name not in INNER]
    open_to_more = parent not in {"", "task"}
    add = f"; an argument that its yaml does not list is added with +{error.full_key}=..." if open_to_more else ""
    return f"unknown key {key!r}{where}: {allowed(key, names)}{add}"


def _wrong_type(error: ConfigCompositionException, cause: Any) -> str:
    key = str(cause.full_key)
    hint: Any = get_type_hints(cause.object_type).get(key.rpartition(".")[2]) if cause.object_type else None
    expected = hint.__name__ if isinstance(hint, type) else str(hint or "another type")
    what = str(error).partition(f"override {key}=")[2].splitlines()
    got = what[0] if what else one_line(cause)
    return f"{key}: expected {expected.replace('None', 'null')}, got {got}"
