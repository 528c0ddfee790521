"""Figures with the interval in which they would lie with other classes of the same kind.

Shapes: Q = queries, C = classes, F = figures, R = resamples.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from metric_module.report.closed_set import CLASSES, TRAINED, titled
from metric_module.report.page import Table

RESAMPLES = 1000
AT_ONCE = 1 << 22


def bootstrap(values: Tensor, classes: Tensor, resamples: int = RESAMPLES, seed: int = 0) -> Tensor:
    """Compute the middle 95 % of the means over queries when whole classes are drawn with replacement.

    Queries of one class are alike, so drawing queries would make the interval too narrow.

    Args:
        values: Figures of each query, float64 ``(Q, F)``.
        classes: Class of each query, int64 ``(Q,)``.
        resamples: Number of resamples, R.
        seed: Seed of the generator that draws the classes.

    Returns:
        Lower and upper ends, ``(2, F)``.

    Example:
        >>> bootstrap(torch.ones(4, 1).double(), torch.tensor([0, 0, 1, 2])).flatten().tolist()
        [1.0, 1.0]
    """
    place = torch.unique(classes, return_inverse=True)[1]  # (Q,)
    size = place.bincount()  # (C,)
    count = len(size)
    total = torch.zeros(count, values.shape[1], dtype=torch.float64).index_add_(0, place, values.double())  # (C, F)
    generator = torch.Generator().manual_seed(seed)
    means = []
    step = max(1, AT_ONCE // count)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = torch.randint(count, (rows, count), generator=generator)
        times = torch.zeros(rows, count, dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones_like(times))  # (rows, C)
        means.append(times @ total / (times @ size.double())[:, None])  # (rows, F)
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    return torch.quantile(torch.cat(means), ends, dim=0)


def figures_table(
    figures: Mapping[str, Mapping[str, float]], stage: str, intervals: Mapping[str, tuple[float, float]]
) -> Table:
    """Return a table with a row for each figure, a column for each stage, and one for the intervals.

    A closed set is named in the head of its column.

    Args:
        figures: The figures by stage and name.
        stage: The stage of the intervals; its column comes first, those of the others in reverse order.
        intervals: Lower and upper end by the figure's name; these figures come first.
    """
    others = [other for other in reversed([*figures]) if other != stage]
    names = dict.fromkeys(name for one in (stage, *others) for name in figures[one] if name not in {CLASSES, TRAINED})
    rows = []
    for name in sorted(names, key=lambda name: name not in intervals):
        first, *rest = (spell(name, figures[one][name]) if name in figures[one] else "" for one in (stage, *others))
        rows.append([name, first, " to ".join(spell(name, end) for end in intervals.get(name, ())), *rest])
    heads = {one: titled(one, row) for one, row in figures.items()}
    header = ["figure", heads[stage], "95 % interval", *(heads[one] for one in others)]
    return Table("figures-table", header, rows, numeric=range(1, len(header)))


def spell(name: str, value: float) -> str:
    """Write a count or a step as a whole number, any other figure with three digits.

    Example:
        >>> spell("queries", 1301.0), spell("best_step", 0.0), spell("mrr", 0.59219)
        ('1,301', '0', '0.592')
    """
    whole = "queries" in name or name.endswith(("_pairs", "best_step"))
    return f"{value:,.0f}" if whole else f"{value:.3f}"
