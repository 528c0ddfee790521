"""Words of the command line that people type and Hydra does not read: ``logger=null`` and ``root=~/pictures``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from metric_module.config import conf_folder
from metric_module.errors import UserError
from metric_module.storage.folders import quoted

CAN_BE_OFF = ("scheduler", "logger", "callbacks")
"""Groups that a run can do without."""

_OFF = re.compile(r"(\w+)=(null|none|false)", re.IGNORECASE)
_HOME = re.compile(r"([+\w.@]+)=(['\"]?)(~(?:/[^'\"]*)?)\2")


def readable(words: Iterable[str]) -> list[str]:
    """Rewrite overrides for Hydra: ``group=null`` switches a group off, and ``~`` is the user's home folder.

    Args:
        words: Overrides as typed.

    Returns:
        One override for each.

    Raises:
        UserError: If a group that every run needs is switched off.

    Example:
        >>> readable(["logger=null", "margin=0.1"])
        ['~logger', 'margin=0.1']
    """
    return [_in_home(_switched_off(word)) for word in words]


def _switched_off(word: str) -> str:
    off = _OFF.fullmatch(word)
    if off is None or not (conf_folder() / off[1]).is_dir() or off[1] == "experiment":
        return word
    if off[1] not in CAN_BE_OFF:
        options = ", ".join(sorted(path.stem for path in (conf_folder() / off[1]).glob("*.yaml")))
        raise UserError(f"{off[1]}: a run needs one of {options}, got {off[2]}; {', '.join(CAN_BE_OFF)} can be off")
    return f"~{off[1]}"


def _in_home(word: str) -> str:
    home = _HOME.fullmatch(word)
    return f"{home[1]}={quoted(Path(home[3]).expanduser())}" if home else word
