"""``resume=<folder>``: continue a run in its folder, with its options, from its newest checkpoint."""

from __future__ import annotations

from pathlib import Path

import yaml

from metric_module.errors import UserError
from metric_module.storage.folders import quoted

_WORD = "resume="


def with_resume(words: list[str]) -> list[str]:
    """Replace ``resume=<folder>`` by the options of that run; options typed now come last and win.

    A ``--config-dir`` of that run must be typed again, because a file cannot vouch for itself.

    Args:
        words: Words of the command line, without the program.

    Returns:
        Words for Hydra; unchanged without ``resume=``.

    Raises:
        UserError: If the folder is not one of a run, or ``-m`` asks for a sweep.
    """
    folders = [word.removeprefix(_WORD) for word in words if word.startswith(_WORD)]
    if not folders:
        return words
    folder = Path(folders[-1])
    rest = [word for word in words if not word.startswith(_WORD)]
    if {"-m", "--multirun"} & set(rest):
        raise UserError("resume: expected one run, got a sweep (-m); for a sweep give resume_sweep=<folder>")
    try:
        overrides = list(yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text()) or [])
        if not all(isinstance(word, str) for word in overrides):
            raise TypeError
    except (OSError, TypeError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"resume: expected the folder of a run, with .hydra/ in it, got {folder}") from error
    strange = [word for word in overrides if word.startswith("-") or word.lstrip("+~").startswith("hydra")]
    if strange:
        raise UserError(f"resume: expected options of a run in {folder}/.hydra/overrides.yaml, got {strange[0]!r}")
    task = next((word for word in reversed(overrides) if word.startswith("task=")), "task=train")
    if task != "task=train":
        raise UserError(f"resume: expected the folder of a training, got one of {task}: {folder}; run it again")
    kept = [word for word in overrides if not word.startswith("ckpt_path=")]
    options = [word for position, word in enumerate(rest) if _is_option(rest, position)]
    typed = [word for position, word in enumerate(rest) if not _is_option(rest, position)]
    return [*options, *kept, "ckpt_path=last", *typed, f"hydra.run.dir={quoted(folder.resolve())}"]


def _is_option(words: list[str], position: int) -> bool:
    """Return whether a word is an option or its value; argparse rejects options between overrides."""
    word = words[position]
    value = position > 0 and words[position - 1].startswith("-") and "=" not in word and not word.startswith("~")
    return word.startswith("-") or value
