"""Reference open-set identification: probe by probe, item by item, threshold by threshold."""

from __future__ import annotations

from typing import NamedTuple

from tests.oracles.retrieval import Measure, Side, euclidean


class Answer(NamedTuple):
    """Answer to one probe: the smallest distance to the gallery, and whether only items of its class have it."""

    distance: float
    right: bool


class Answers(NamedTuple):
    """Answers to the probes of enrolled classes and of the others, and the number of enrolled items."""

    known: list[Answer]
    unknown: list[Answer]
    enrolled: int


def answers(own: Side, classes: set[int], enrolled: int, distance: Measure = euclidean) -> Answers:
    """Enrol the first samples of each of the classes by id, and search with all other samples."""
    assert own.ids is not None
    rows = sorted(range(len(own.x)), key=own.ids.__getitem__)
    gallery: list[int] = []
    for label in classes:
        gallery += [row for row in rows if own.labels[row] == label][:enrolled]
    found = Answers([], [], len(gallery))
    for probe in rows:
        if probe in gallery:
            continue
        nearest, right = float("inf"), False
        for item in gallery:
            apart, same = distance(own.x[probe], own.x[item]), own.labels[item] == own.labels[probe]
            if apart < nearest:
                nearest, right = apart, same
            elif apart == nearest:
                right = right and same
        (found.known if own.labels[probe] in classes else found.unknown).append(Answer(nearest, right))
    return found


def detected(given: Answers, threshold: float) -> float:
    """Compute the share of known probes that are accepted and named rightly."""
    return sum(one.right and one.distance <= threshold for one in given.known) / len(given.known)


def false_positives(given: Answers, threshold: float) -> float:
    """Compute the share of unknown probes that are accepted."""
    return sum(one.distance <= threshold for one in given.unknown) / len(given.unknown)


def identification_figures(given: Answers, far: tuple[float, ...]) -> dict[str, float]:
    """Compute every figure."""
    edges = sorted({one.distance for one in given.known + given.unknown})
    figures: dict[str, float] = {}
    for rate in far:
        if rate * len(given.unknown) >= 1:
            figures[f"dir_at_far_{rate:.0e}".replace("e-0", "e-")] = max(
                [detected(given, edge) for edge in edges if false_positives(given, edge) <= rate], default=0.0
            )
    counts = {"known_probes": len(given.known), "unknown_probes": len(given.unknown), "enrolled": given.enrolled}
    return figures | {"identification_rate": detected(given, float("inf")), **counts}
