"""Settings of the methods of re-ranking, and how they are named in a configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from metric_module.checks import check_count
from metric_module.errors import UserError, did_you_mean


@dataclass(frozen=True)
class KReciprocal:
    """Settings of k-reciprocal re-ranking; the defaults are those of Zhong et al. (CVPR 2017).

    Args:
        k1: Number of neighbours among which reciprocal ones are sought.
        k2: Number of neighbours, the item itself included, whose encodings are averaged; 1 averages none.
        weight: Weight of the original distance in the final one, in [0, 1].

    Raises:
        UserError: If a number is out of range.
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_count("k_reciprocal.k1", self.k1)
        check_count("k_reciprocal.k2", self.k2)
        if self.k2 > self.k1:
            raise UserError(f"k_reciprocal.k2: expected at most k1={self.k1}, got {self.k2}")
        if not 0 <= self.weight <= 1:
            raise UserError(f"k_reciprocal.weight: expected a number in [0, 1], got {self.weight}")


@dataclass(frozen=True)
class QueryExpansion:
    """Settings of alpha query expansion.

    Args:
        k: Number of neighbours that are added to a query.
        alpha: Power of their cosine similarity; 0 weights all alike.

    Raises:
        UserError: If a number is out of range.
    """

    k: int = 10
    alpha: float = 3.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_count("query_expansion.k", self.k)
        if not (self.alpha >= 0 and math.isfinite(self.alpha)):
            raise UserError(f"query_expansion.alpha: expected a number of 0 or more, got {self.alpha}")


Method = KReciprocal | QueryExpansion
METHODS: Mapping[str, type[Method]] = {"k_reciprocal": KReciprocal, "query_expansion": QueryExpansion}
Rerank = str | Sequence[str] | Mapping[str, Mapping[str, Any] | None] | None
"""A method, several of them, or their settings by method: ``{k_reciprocal: {k1: 30}}``; None is no method."""


def rerank_methods(rerank: Rerank, name: str) -> dict[str, Method]:
    """Read which methods are asked for, and their settings.

    Args:
        rerank: A method, several of them, or their settings by method.
        name: Name of the argument, for a message.

    Returns:
        The settings by method.

    Raises:
        UserError: If a method or a setting is unknown, or a number is out of range.

    Example:
        >>> rerank_methods("query_expansion", "rerank")
        {'query_expansion': QueryExpansion(k=10, alpha=3.0)}
    """
    if rerank is None:
        return {}
    given = (
        rerank
        if isinstance(rerank, Mapping)
        else dict.fromkeys(rerank if isinstance(rerank, list | tuple) else [rerank])
    )
    return {method: _settings(name, method, values) for method, values in given.items()}


def _settings(name: str, method: object, values: object) -> Method:
    kind = METHODS.get(str(method))
    if kind is None:
        close = did_you_mean(str(method), list(METHODS))
        raise UserError(f"{name}: {close}expected {' or '.join(METHODS)}, or both in a list, got {method!r}")
    known = [field.name for field in fields(kind)]
    given: Any = {} if values is None else values
    unknown = [key for key in given if key not in known] if isinstance(given, Mapping) else [given]
    if unknown:
        close = did_you_mean(str(unknown[0]), known)
        raise UserError(f"{name}.{method}: {close}expected the settings {', '.join(known)}, got {unknown[0]!r}")
    return kind(**given)
