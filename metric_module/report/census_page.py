"""``census.html``: the distances of pairs in a data set, and the shares of triplets at each margin."""

from __future__ import annotations

from metric_module.evaluation.separation import QUANTILES, Separation
from metric_module.report.page import Table, render
from metric_module.report.plots.separation import margins_plot, separation_plot, shares_at


def census_page(found: Separation, margin: float, listed: list[float], about: str) -> str:
    """Render the page of a census.

    Args:
        found: The separation of the data set; it may have more margins than are listed.
        margin: The margin of the run, in units of the distance.
        listed: Margins of the table.
        about: Which samples were measured, in plain text.

    Returns:
        A whole HTML document.
    """
    shares = [
        [f"{value:g}", *(f"{100 * float(part[place]):.2f} %" for part in (found.easy, found.semihard, found.hard))]
        for place, value in enumerate(found.margins.tolist())
        if value in listed
    ]
    levels = zip(QUANTILES, found.positive_quantiles.tolist(), found.negative_quantiles.tolist(), strict=True)
    quantiles = [[f"{level:g}", f"{d_ap:.4f}", f"{d_an:.4f}"] for level, d_ap, d_an in levels]
    values = {
        "about": about,
        "distances": separation_plot([("", found)], margin),
        "quantiles": Table("quantiles", ["quantile", "d_ap", "d_an"], quantiles, numeric=range(3)),
        "triplets": int(found.triplets),
        "margin": f"{margin:g}",
        "at_margin": shares_at(found, margin),
        "margins": margins_plot(found, margin),
        "shares": Table("shares", ["margin", "easy", "semi-hard", "hard"], shares, numeric=range(4)),
    }
    return render("census", "Census", values)
