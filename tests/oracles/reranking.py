"""Reference re-ranking, from the papers: sets and loops over single items.

Sources: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding" (CVPR 2017); Radenovic et al.,
"Fine-tuning CNN Image Retrieval with No Human Annotation" (TPAMI 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tests.oracles.retrieval import Measure, Row, Side

Encoding = dict[int, float]
Place = Callable[[int], tuple[float, int]]


class Gallery:
    """Items with their neighbours and reciprocal sets; ``measure`` ranks, and ``original`` weights."""

    def __init__(self, items: Side, measure: Measure, original: Measure, k1: int, k2: int) -> None:
        self.items, self.measure, self.original, self.k1, self.k2 = items, measure, original, k1, k2
        self.near = [self.nearest(items.x[row], row) for row in range(len(items.x))]
        self.alone = [self.encode(items.x[row], self.expand(self.reciprocal(row, k1))) for row in range(len(items.x))]
        self.encoded = [
            self.average([self.alone[g] for g in [row, *self.near[row]][:k2]]) for row in range(len(items.x))
        ]

    def nearest(self, query: Row, skip: int | None) -> list[int]:
        """N(p, all): rows in order of distance, then of id; without the query itself."""
        names = self.items.ids or list(range(len(self.items.x)))
        rows = [row for row in range(len(self.items.x)) if row != skip]
        return sorted(rows, key=lambda row: (self.measure(query, self.items.x[row]), names[row]))

    def reciprocal(self, item: int, k: int) -> set[int]:
        """R(g, k) of an item: itself, and the neighbours that have it among theirs."""
        return {item} | {g for g in self.near[item][:k] if item in self.near[g][:k]}

    def expand(self, found: set[int]) -> set[int]:
        """R*: add the smaller sets of members that share two thirds with the set."""
        whole = set(found)
        for member in found:
            smaller = self.reciprocal(member, math.ceil(self.k1 / 2))
            if len(found & smaller) >= 2 / 3 * len(smaller):
                whole |= smaller
        return whole

    def encode(self, query: Row, members: set[int]) -> Encoding:
        """V_p: exp(-d) of the members."""
        row = self.normalised(query)
        return {g: math.exp(-row[g]) for g in members}

    def normalised(self, query: Row) -> list[float]:
        """Original distances: none negative, the largest 1."""
        row = [self.original(query, item) for item in self.items.x]
        row = [value - min(0.0, *row) for value in row]
        return [value / (max(row) or 1.0) for value in row]

    def average(self, encodings: list[Encoding]) -> Encoding:
        """Mean of encodings."""
        places = {place for encoding in encodings for place in encoding}
        return {place: sum(one.get(place, 0.0) for one in encodings) / len(encodings) for place in places}

    def encode_query(self, query: Row, name: int | None) -> Encoding:
        """Encode a query, which may be an item."""
        if name is not None and self.items.ids is not None and name in self.items.ids:
            return self.encoded[self.items.ids.index(name)]
        near = self.nearest(query, None)
        last = [self.near[g][: self.k1][-1:] for g in near]
        back = {
            g
            for g, of_item in zip(near, last, strict=True)
            if not of_item
            or self.measure(self.items.x[g], query) <= self.measure(self.items.x[g], self.items.x[of_item[0]])
        }
        own = self.encode(query, self.expand({g for g in near[: self.k1] if g in back}))
        return self.average([own, *(self.alone[g] for g in near[: self.k2 - 1])])


def jaccard(one: Encoding, other: Encoding) -> float:
    """1 - sum of minima / sum of maxima."""
    places = one.keys() | other.keys()
    low = sum(min(one.get(place, 0.0), other.get(place, 0.0)) for place in places)
    high = sum(max(one.get(place, 0.0), other.get(place, 0.0)) for place in places)
    return 1 - low / high


def k_reciprocal(
    query: Side, items: Side, measure: Measure, original: Measure, k1: int = 20, k2: int = 6, weight: float = 0.3
) -> NDArray[np.float64]:
    """Final distances, one pair at a time."""
    gallery = Gallery(items, measure, original, k1, k2)
    found = np.zeros((len(query.x), len(items.x)))
    for row, x in enumerate(query.x):
        encoding = gallery.encode_query(x, None if query.ids is None else query.ids[row])
        before = gallery.normalised(x)
        for g in range(len(items.x)):
            found[row, g] = (1 - weight) * jaccard(encoding, gallery.encoded[g]) + weight * before[g]
    return found


def expand_queries(query: Side, items: Side, measure: Measure, k: int = 10, alpha: float = 3.0) -> NDArray[np.float64]:
    """Queries with their nearest items added, one at a time."""
    names = items.ids or list(range(len(items.x)))
    found = []
    for row, x in enumerate(query.x):
        others = [
            g for g in range(len(items.x)) if query.ids is None or items.ids is None or names[g] != query.ids[row]
        ]
        others.sort(key=lambda g: (measure(x, items.x[g]), names[g]))
        total = x.copy()
        for g in others[:k]:
            lengths = math.sqrt(x @ x) * math.sqrt(items.x[g] @ items.x[g])
            cosine = float(x @ items.x[g]) / lengths if lengths else 0.0
            total = total + max(cosine, 0.0) ** alpha * items.x[g]
        length = math.sqrt(total @ total)
        found.append(total / length * math.sqrt(x @ x) if length else x)
    return np.array(found)
