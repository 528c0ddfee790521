"""Mined triplets of the first, the middle and the last step."""

from __future__ import annotations

import torch

from metric_module.report.samples.album import album
from metric_module.report.samples.mined import phases
from tests.helpers.report_runs import mined, show
from tests.metric_module.report.test_page import macro


def test_mined_triplets_by_phase() -> None:
    start, middle, end = phases(mined())
    assert (start.title, middle.title, end.title) == ("At the start", "In the middle", "At the end")
    assert middle.about == "step 5 of 9; Semihard, margin 0.3: 1 semi-hard, 1 hard"
    assert [triplet.kind for triplet in middle.triplets] == ["semi-hard", "hard"]
    assert middle.triplets[0].samples == [("anchor", 1, ""), ("positive", 2, "d = 0.50"), ("negative", 7, "d = 0.70")]
    text = macro("mined", middle, album([1, 2, 3, 4, 7, 8], {}, show, None))
    assert text.count('<li class="triplet card">') == 2 and text.count("<figcaption>") == 6


def test_steps_without_mined_triplets_say_why() -> None:
    kept = mined()
    del kept["middle"]
    kept["end"] = {**kept["end"], "ids": torch.zeros(0, 3).long(), "distances": torch.zeros(0, 2), "steps": None}
    _, middle, end = phases(kept)
    assert middle.about == "Training did not reach this step, or passed it before the recording began."
    assert end.about == "step 9; Semihard, margin 0.3: the miner found no triplet"
    assert middle.triplets == end.triplets == []
