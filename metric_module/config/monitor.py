"""Direction of a figure, from its name alone."""

from __future__ import annotations

_ERRORS = ("loss", "eer", "error")


def is_error(figure: str) -> bool:
    """Return whether a figure is a loss or an error, for which lower is better, by its name.

    Example:
        >>> is_error("val/loss"), is_error("val/map_at_r")
        (True, False)
    """
    name = figure.rpartition("/")[2]
    return any(word in name.split("_") for word in _ERRORS)
