"""Closed sets: figures of classes that were trained on, by the counts that the figures of a run record.

The rule of this project is that figures are those of unseen classes. Where they are not, every table says so.
"""

from __future__ import annotations

from collections.abc import Mapping

CLASSES, TRAINED = "classes", "classes_trained_on"
"""Names among the figures of a set: its classes, and those of them that were trained on."""


def closed_set(row: Mapping[str, float]) -> str:
    """Name figures of classes that were trained on.

    Args:
        row: The figures of a set by name.

    Returns:
        ``closed set``, ``partly closed set`` if only some of the classes were trained on; empty if none was, or if it
        is not known.

    Example:
        >>> closed_set({"map_at_r": 0.5, "classes": 10, "classes_trained_on": 10}), closed_set({"map_at_r": 0.5})
        ('closed set', '')
    """
    trained = row.get(TRAINED, 0)
    if not trained:
        return ""
    return "closed set" if trained == row.get(CLASSES, trained) else "partly closed set"


def titled(text: str, row: Mapping[str, float]) -> str:
    """Append the name of :func:`closed_set` in brackets, if there is one.

    Args:
        text: Title of the figures.
        row: The figures of a set by name.

    Example:
        >>> titled("test", {"classes": 4, "classes_trained_on": 3}), titled("test", {})
        ('test (partly closed set)', 'test')
    """
    label = closed_set(row)
    return f"{text} ({label})" if label else text


def of_figure(name: str, figures: Mapping[str, float]) -> Mapping[str, float]:
    """Return the counts of the set that a figure belongs to.

    Args:
        name: Set and name of the figure, ``val/map_at_r``.
        figures: Figures by set and name.

    Example:
        >>> of_figure("val/map_at_r", {"val/classes_trained_on": 3, "test/classes_trained_on": 5})
        {'classes_trained_on': 3}
    """
    stage = name.partition("/")[0]
    return {count: figures[f"{stage}/{count}"] for count in (CLASSES, TRAINED) if f"{stage}/{count}" in figures}


def explained(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Say in one line which sets are closed; empty if none is.

    Args:
        figures: The figures by set and name.

    Example:
        >>> explained({"val": {"map_at_r": 0.5}, "test": {"classes": 10, "classes_trained_on": 10}})
        'closed set: 10 of the 10 classes of test were trained on, so its figures are not those of unseen classes'
    """
    found = {stage: row for stage, row in figures.items() if closed_set(row)}
    if not found:
        return ""
    counts = [
        f"{row[TRAINED]:.0f} of the {row.get(CLASSES, row[TRAINED]):.0f} classes of {stage}"
        for stage, row in found.items()
    ]
    its = "its" if len(found) == 1 else "their"
    return f"closed set: {' and '.join(counts)} were trained on, so {its} figures are not those of unseen classes"
