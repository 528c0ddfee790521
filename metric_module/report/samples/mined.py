"""Triplets that were mined at the start, in the middle and at the end of training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from metric_module.criterion.examples import CATEGORIES, categories

PHASES = {"start": "At the start", "middle": "In the middle", "end": "At the end"}


class Triplet(NamedTuple):
    """A mined triplet: easy, semi-hard or hard, and role, id and distance (in words) of its three samples."""

    kind: str
    samples: list[tuple[str, int, str]]


class Phase(NamedTuple):
    """The mined triplets of one training step, and which step that was."""

    title: str
    about: str
    triplets: list[Triplet]


def mined_ids(mined: Mapping[str, Mapping[str, Any]]) -> set[int]:
    """Return the ids of all samples that :class:`metric_module.callbacks.MinedTriplets` recorded."""
    return {id for kept in mined.values() for id in kept["ids"].flatten().tolist()}


def phases(mined: Mapping[str, Mapping[str, Any]]) -> list[Phase]:
    """Return the recorded triplets in the order of training.

    Args:
        mined: The records of :class:`metric_module.callbacks.MinedTriplets`, by phase.
    """
    return [_phase(title, mined.get(phase)) for phase, title in PHASES.items()]


def _phase(title: str, kept: Mapping[str, Any] | None) -> Phase:
    if kept is None:
        return Phase(title, "Training did not reach this step, or passed it before the recording began.", [])
    of = "" if kept["steps"] is None else f" of {kept['steps']:,}"
    about = f"step {kept['step'] + 1:,}{of}; {kept['miner']}, margin {kept['margin']:.3g}"
    d_ap, d_an = kept["distances"].unbind(dim=1)  # (T,), (T,)
    kinds = categories(d_ap, d_an, kept["margin"])
    number = Counter(kinds)
    shares = ", ".join(f"{number[kind]} {kind}" for kind in CATEGORIES if number[kind])
    triplets = []
    for (anchor, positive, negative), near, far, kind in zip(
        kept["ids"].tolist(), d_ap.tolist(), d_an.tolist(), kinds, strict=True
    ):
        roles = [("positive", positive, f"d = {near:.2f}"), ("negative", negative, f"d = {far:.2f}")]
        triplets.append(Triplet(kind, [("anchor", anchor, ""), *roles]))
    return Phase(title, f"{about}: {shares or 'the miner found no triplet'}", triplets)
