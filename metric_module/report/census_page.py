"""The census of a data set on a page."""

from __future__ import annotations

from html import escape

from metric_module.evaluation.separation import QUANTILES, Separation
from metric_module.report.page import figure, page, table
from metric_module.report.plots.separation import margins_plot, separation_plot, shares_at


def census_page(found: Separation, margin: float, listed: list[float], about: str) -> str:
    """A whole page.

    Args:
        found: The separation, at more margins than are listed.
        margin: The run's own.
        listed: The margins to tell in numbers.
        about: What was looked at, plain text.
    """
    shares = [
        [f"{value:g}", *(f"{100 * float(part[place]):.2f} %" for part in (found.easy, found.semihard, found.hard))]
        for place, value in enumerate(found.margins.tolist())
        if value in listed
    ]
    quantiles = [
        [f"{level:g}", f"{d_ap:.4f}", f"{d_an:.4f}"]
        for level, d_ap, d_an in zip(
            QUANTILES, found.positive_quantiles.tolist(), found.negative_quantiles.tolist(), strict=True
        )
    ]
    parts = [
        f"<p>{escape(about)}</p>\n<h2>How far apart pairs are</h2>",
        '<p class="muted">Positive pairs are of one class, negative ones of two. A triplet has a loss where its '
        "negative lies within the margin of its positive: the band is drawn beyond the median positive pair.</p>",
        figure(separation_plot([("", found)], margin), "distances"),
        table(["quantile", "d_ap", "d_an"], quantiles, "quantiles", numeric={0, 1, 2}),
        "<h2>Where the margin bites</h2>",
        f'<p class="muted">Of {int(found.triplets):,} triplets, at margin {margin:g}: '
        f"{escape(shares_at(found, margin))}. Hard and semi-hard ones have a loss.</p>",
        figure(margins_plot(found, margin), "margins"),
        table(["margin", "easy", "semi-hard", "hard"], shares, "shares", numeric={0, 1, 2, 3}),
    ]
    return page("Census", "\n".join(parts))
