"""Intervals of the figures, and their table."""

from __future__ import annotations

import pytest
import torch

from metric_module.report.intervals import bootstrap, figures_table, spell


def test_the_bootstrap_draws_classes_not_queries() -> None:
    """Ten classes of twenty equal queries: the interval is that of ten values, not of two hundred."""
    value = torch.arange(10.0, dtype=torch.float64)
    values, classes = value.repeat_interleave(20)[:, None], torch.arange(10).repeat_interleave(20)
    low, high = bootstrap(values, classes).flatten().tolist()
    generator = torch.Generator().manual_seed(9)
    means = sorted(value[torch.randint(10, (10,), generator=generator)].mean().item() for _ in range(4000))
    assert low == pytest.approx(means[100], abs=0.2) and high == pytest.approx(means[3900], abs=0.2)
    assert high - low > 3
    state = torch.get_rng_state()
    assert torch.equal(bootstrap(values, classes), bootstrap(values, classes))
    assert torch.equal(torch.get_rng_state(), state)


def test_classes_of_many_queries_weigh_more() -> None:
    values = torch.cat([torch.ones(90), torch.zeros(10)]).double()[:, None]
    low, high = bootstrap(values, torch.tensor([0] * 90 + [1] * 10)).flatten().tolist()
    assert (low, high) == (0, 1)  # both classes, or one of them twice


def test_figures_with_an_interval_come_first() -> None:
    figures = {"val": {"loss": 1.0}, "test": {"loss": 0.25, "queries": 3.0, "mrr": 0.5}}
    table = figures_table(figures, "test", {"mrr": (0.4, 0.6)})
    assert table.header == ["figure", "test", "95 % interval", "val"]
    assert table.rows == [
        ["mrr", "0.500", "0.400 to 0.600", ""],
        ["loss", "0.250", "", "1.000"],
        ["queries", "3", "", ""],
    ]


def test_figures_from_before_training_come_last_and_a_step_is_whole() -> None:
    """The order of the figures is raw, before, val, test, and that of the columns the reverse."""
    figures = {"raw": {"mrr": 0.3}, "before": {"loss": 0.9, "mrr": 0.2}}
    figures |= {"val": {"loss": 0.5, "mrr": 0.6, "best_step": 0.0}, "test": {"loss": 0.4, "mrr": 0.7}}
    table = figures_table(figures, "test", {"mrr": (0.4, 0.6)})
    assert table.header == ["figure", "test", "95 % interval", "val", "before", "raw"]
    assert table.rows == [
        ["mrr", "0.700", "0.400 to 0.600", "0.600", "0.200", "0.300"],
        ["loss", "0.400", "", "0.500", "0.900", ""],
        ["best_step", "", "", "0", "", ""],
    ]
    del figures["raw"], figures["test"]
    assert figures_table(figures, "val", {}).header == ["figure", "val", "95 % interval", "before"]
    assert spell("best_step", 784.0) == "784"


def test_a_closed_set_is_named_in_its_head() -> None:
    figures = {"raw": {"mrr": 0.3}, "val": {"mrr": 0.6, "classes_trained_on": 4.0, "classes": 5.0}}
    figures["test"] = {"mrr": 0.7, "classes_trained_on": 5.0, "classes": 5.0}
    table = figures_table(figures, "test", {"mrr": (0.4, 0.6)})
    assert table.header == ["figure", "test (closed set)", "95 % interval", "val (partly closed set)", "raw"]
    assert table.rows == [["mrr", "0.700", "0.400 to 0.600", "0.600", "0.300"]]
