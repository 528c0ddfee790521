"""``resume_sweep=<folder>``: run the missing and failed jobs of a sweep with its original options."""

from __future__ import annotations

import sys
from pathlib import Path

from metric_module.errors import UserError, printable
from metric_module.storage.folders import quoted
from metric_module.sweeps.ledger import SWEEP, read_plan

WORD = "resume_sweep="
_KEPT = ("hydra/sweeper", "hydra.sweeper", "hydra.sweep.subdir")
_LAUNCHER = ("hydra/launcher", "hydra.launcher")
_DROPPED = ("hydra.mode", "hydra.sweep.dir", "hydra.callbacks.report.resume")
_MAY_FOLLOW = ("-", "trusted=", "debug=", "hydra")


def with_resume_sweep(words: list[str]) -> list[str]:
    """Replace ``resume_sweep=<folder>`` by the options of that sweep.

    They come from a file, so the classes they name must be trusted or typed again. The launcher must be typed again,
    since its settings may contain shell commands; without one the jobs run one after another.

    Args:
        words: Arguments of the command line, without the program.

    Returns:
        Arguments for Hydra; unchanged if ``resume_sweep=`` is not among them.

    Raises:
        UserError: If the folder does not belong to a sweep, or options other than its own are given.
    """
    folders = [word.removeprefix(WORD) for word in words if word.startswith(WORD)]
    if not folders:
        return words
    folder = Path(folders[-1])
    try:
        plan = read_plan(folder)
        own, hydra_words = [str(word) for word in plan.words], [str(word) for word in plan.hydra_words]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"resume_sweep: expected the folder of a sweep, with {SWEEP} in it, got {folder}") from error
    typed = [word for word in words if not word.startswith(WORD) and word not in {"-m", "--multirun", *own}]
    for word in typed:
        if "=" in word and not word.lstrip("+~").startswith(_MAY_FOLLOW):
            raise UserError(
                f"resume_sweep: a sweep continues with its own options, got {word!r}; allowed: trusted=, debug="
            )
    for word in own + hydra_words:
        if word.startswith("-") or (word.lstrip("+~").startswith("hydra") and not _is_allowed(word, typed)):
            raise UserError(f"resume_sweep: {word!r} comes from {folder / SWEEP}; to use it, type it again")
        if printable(word) != word and word not in words:
            raise UserError(f"resume_sweep: {word!r} from {folder / SWEEP} has control characters; type it again")
    launched = [word for word in hydra_words if word.startswith(_LAUNCHER) and word not in typed]
    if launched:
        print(f"resume_sweep: runs without {' '.join(launched)}; to use the launcher, type it again", file=sys.stderr)
    kept = [word for word in hydra_words if word.lstrip("+~").startswith(_KEPT) and word not in typed]
    place = quoted(folder.resolve())
    options = [word for word in typed if word.startswith("-") or "=" not in word]  # argparse needs them together
    rest = [word for word in typed if word not in options]
    return ["-m", *options, *own, *kept, *rest, f"hydra.sweep.dir={place}", "hydra.callbacks.report.resume=true"]


def _is_allowed(word: str, typed: list[str]) -> bool:
    return word.lstrip("+~").startswith((*_KEPT, *_DROPPED, *_LAUNCHER)) or word in typed
