"""Figures from before training in a real browser; run with ``pytest -m browser``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metric_module.report.run_page import write_report
from tests.helpers.report_runs import made_up
from tests.metric_module.report.test_run_page_browser import CONTRAST, SIZES, Opened

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}-{size[1]}")
def test_figures_from_before_training_fit_the_screen(browser: Any, tmp_path: Path, size: Any) -> None:
    stages = {
        stage: {"recall_at_1": 0.5, "map_at_r": 0.5, "best_step": 784.0} for stage in ("raw", "before", "val", "test")
    }
    run = made_up(
        tmp_path, monitor="val/map_at_r", figures=stages, no_help="training did not help: try another encoder"
    )
    write_report(tmp_path / "report.html", run)
    window = Opened(browser, tmp_path / "report.html", *size)
    table = window.page.locator(".scroll:has(#figures-table)")
    assert table.evaluate("(one) => one.scrollWidth - one.clientWidth") <= 1
    for place in ("#part-figures .bad", "#part-figures .muted", "#validation .annotation-text"):
        assert window.page.locator(place).first.evaluate(CONTRAST) >= 4.5, place
    assert window.page.locator("#validation .annotation-text").all_text_contents() == ["before training", "raw inputs"]
    window.context.close()
    assert window.problems == []
