"""The three sides of a recipe are measured by the same figures, on the same classes."""

from __future__ import annotations

import pytest

from benchmarks.learning import run
from benchmarks.recipes import before, pixels, table, title

SMALL = ["datamodule.image_size=8", "evaluation=[retrieval,verification]", "trainer.accelerator=cpu"]
QUICK = ["trainer.max_steps=2", "encoder=mlp", "encoder.in_features=192", "encoder.hidden=[]", *SMALL]


@pytest.mark.integration
def test_raw_pixels_and_both_criteria_give_the_same_figures() -> None:
    raw = pixels(SMALL)
    assert 0.2 < raw["recall_at_1"] < 0.7
    assert 0.5 < raw["roc_auc"] < 0.95
    ours, _ = run("distance_weighted", 1, False, QUICK)
    peer, _ = run("distance_weighted", 1, True, QUICK)
    assert set(raw) <= set(ours) | {"best_threshold"} and set(ours) == set(peer)
    assert set(before(QUICK)) == set(ours) and before(QUICK)["map_at_r"] != ours["map_at_r"]
    assert ours["queries"] == peer["queries"] == raw["queries"]
    text = table({"pixels": [raw], "ours": [ours, ours], "peer": [peer]}, title(SMALL))
    header, _, *rows = text.splitlines()
    assert header == "| test classes | raw pixels | lightning-triplets | pytorch-metric-learning |"
    assert any(
        row.startswith(f"| recall_at_1 | {raw['recall_at_1']:.3f} | {ours['recall_at_1']:.3f} (0.000) |")
        for row in rows
    )
    assert not any("pairs" in row or "queries" in row for row in rows)


def test_a_table_is_a_mean_over_runs() -> None:
    runs = [{"map_at_r": value, "loss": 9.0} for value in (0.25, 0.75)]
    head = "| test classes (closed set) | lightning-triplets |"
    expected = [head, "|---|---|", "| map_at_r | 0.500 (0.500) |"]
    assert table({"ours": runs}, "test classes (closed set)").splitlines() == expected
    with pytest.raises(KeyError):
        table({"ours": [runs[0], {}]}, "test classes")
