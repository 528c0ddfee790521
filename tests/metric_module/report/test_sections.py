"""The sections of a report, on small data."""

from __future__ import annotations

import math
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from metric_module import UserError
from metric_module.evaluation.verification.metrics import roc_curve
from metric_module.report.intervals import bootstrap, figures_table
from metric_module.report.plots import embedding_map as maps
from metric_module.report.plots.curves import read_curves, training_plots
from metric_module.report.plots.roc import at_rate, at_threshold, equal_error, roc_plot, roc_table
from metric_module.report.plots.separation import separation_plot, shares_at
from metric_module.report.samples.album import Look, album, data_uri
from metric_module.report.samples.gallery import confusions, gallery
from metric_module.report.samples.mined import phases
from metric_module.report.samples.neighbours import Items, nearest, whole_classes, worst_and_spread
from metric_module.report.samples.selection import choose
from tests.helpers.report_runs import MARGIN, csv, items, made_up, mined, show
from tests.metric_module.report.test_page import macro


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


def test_neighbours_leave_the_query_out_and_search_the_gallery() -> None:
    samples = items()
    found = nearest(samples, torch.arange(30), 4)
    exact = torch.cdist(samples.embeddings.double(), samples.embeddings.double()).fill_diagonal_(math.inf)
    torch.testing.assert_close(found.distances.double(), exact.sort().values[:, :4], atol=1e-6, rtol=0)
    assert bool((found.rows != torch.arange(30)[:, None]).all())
    half = samples._replace(gallery=torch.arange(0, 30, 2))
    assert set(nearest(half, torch.arange(30), 3).rows.flatten().tolist()) <= set(range(0, 30, 2))


def test_a_cap_keeps_the_worst_and_a_spread() -> None:
    badness = torch.arange(100.0)
    places = worst_and_spread(badness, 30, 20).tolist()
    assert places[:20] == list(range(99, 79, -1))
    assert len(places) == 30 and places[20] == 79 and places[-1] == 0
    assert len(worst_and_spread(badness, 100, 20)) == 100


def test_whole_classes_fit_but_two_always() -> None:
    labels = torch.arange(6).repeat_interleave(5)
    assert len(whole_classes(labels, 14)) == 10 and len(whole_classes(labels, 1)) == 10
    assert len(whole_classes(labels, 1000)) == 30


def test_the_gallery_is_worst_first_and_says_what_is_right(tmp_path: Path) -> None:
    run = made_up(tmp_path)
    chosen = choose(run)
    assert len(chosen.queries) == 30
    assert [query.map_at_r for query in chosen.queries] == sorted(query.map_at_r for query in chosen.queries)
    for query in chosen.queries:
        assert query.near[0][2] == query.right
        label = int(run.items.labels[query.id - 100])
        assert all(right == (int(run.items.labels[id - 100]) == label) for id, _, right in query.near)
        assert all(id != query.id for id, _, _ in query.near) and len(query.near) == 6
    assert 0 < sum(query.right for query in chosen.queries) < 30


def test_a_large_set_is_shown_in_part(tmp_path: Path) -> None:
    run = made_up(tmp_path, items=items(classes=500, each=4), before=None)
    chosen = choose(run)
    assert len(chosen.queries) == 300 and len(chosen.points) == 1500
    assert chosen.confused > len(chosen.pairs) == 20
    assert len(chosen.ids(run)) < 300 * 7 + 1500
    again = choose(run)
    assert again.queries == chosen.queries and torch.equal(again.points, chosen.points)


def test_ranks_that_were_not_counted_to_the_end_are_lower_bounds() -> None:
    """With ``all_ranks=false`` the metric does not distinguish ranks beyond its largest cutoff."""
    samples = items()
    near = nearest(samples, torch.arange(3), 2)
    first, figure = torch.tensor([1, 10, 11]), torch.zeros(3)
    words = ["right at rank 1", "first right at rank 10", "first right at rank 11"]
    assert [query.found for query in gallery(samples, near, first, figure, None)] == words
    assert [query.found for query in gallery(samples, near, first, figure, 10)] == [*words[:2], f"{words[2]} or later"]


def test_confused_pairs_are_counted_both_ways() -> None:
    line = torch.tensor([[0.0], [1.0], [1.1], [0.1], [9.0], [9.5]])
    samples = Items(line, torch.tensor([7, 8, 7, 8, 9, 9]), torch.arange(6), torch.arange(6))
    rows = torch.tensor([0, 1, 2, 3])
    (pair,) = confusions(samples, nearest(samples, rows, 1), Counter({7: 2, 8: 2, 9: 2}))
    assert (pair.wrong, pair.queries) == (4, 4)
    assert {int(samples.labels[pair.one]), int(samples.labels[pair.other])} == {7, 8}


def test_curves_stop_where_training_did(tmp_path: Path) -> None:
    curves = read_curves(csv(tmp_path), before=9)
    steps, values = zip(*curves["train/loss"], strict=True)
    assert steps == tuple(range(9)) and values == pytest.approx([1 / (1 + step) for step in steps], abs=1e-3)
    assert curves["val/loss"] == [(8, 0.4)]
    plots = training_plots(curves)
    assert list(plots) == ["loss", "census", "validation"]
    assert [trace.name for trace in plots["loss"].data] == ["train", "val"]
    assert [trace.name for trace in plots["validation"].data] == ["map_at_r"]
    assert [trace.name for trace in plots["census"].data] == ["hard", "semi-hard", "easy"]
    assert {trace.stackgroup for trace in plots["census"].data} == {"shares"}
    sums = [sum(values) for values in zip(*(trace.y for trace in plots["census"].data), strict=True)]
    assert sums == pytest.approx([100] * 9)
    assert training_plots({}) == {}


def test_long_curves_are_thinned(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("step,epoch,train/loss\n" + "".join(f"{step},0,1\n" for step in range(9000)))
    assert len(read_curves(path)["train/loss"]) == 1500


def test_the_margin_is_drawn_beyond_the_median_positive(tmp_path: Path) -> None:
    run = made_up(tmp_path)
    assert run.before is not None and run.after is not None
    plot = separation_plot([("before", run.before), ("after", run.after)], MARGIN)
    bands = [shape for shape in plot.layout.shapes if shape.type == "rect"]
    assert [band.x1 - band.x0 for band in bands] == pytest.approx([MARGIN, MARGIN])
    assert bands[1].x0 == pytest.approx(float(run.after.positive_quantiles[3]))
    for trace in plot.data:
        width = torch.tensor(trace.x).diff()
        assert float((torch.tensor(trace.y)[:-1] * width).sum()) == pytest.approx(1)
    shares = [float(word.split()[0]) for word in shares_at(run.after, MARGIN).split(", ")]
    assert sum(shares) == pytest.approx(100, abs=0.2) and min(shares) > 0
    assert not [shape for shape in separation_plot([("", run.after)], 0).layout.shapes if shape.type == "rect"]


def test_roc() -> None:
    samples = items()
    curve = roc_curve(samples.embeddings, samples.labels)
    equal = equal_error(curve)
    assert float(curve.far[equal]) == pytest.approx(1 - float(curve.tar[equal]), abs=0.05)
    place = at_rate(curve, 0.1)
    assert place is not None and curve.far[place] <= 0.1 < curve.far[min(place + 1, len(curve.far) - 1)]
    assert at_rate(curve._replace(far=curve.far + 1), 0.1) is None
    assert ["at most 0.1 false", "none", "", ""] in roc_table(curve._replace(far=curve.far + 1)).rows
    assert at_threshold(curve, float(curve.thresholds[5]) + 1e-9) == 5
    assert at_threshold(curve, -1.0) is None
    marked = roc_plot(curve, float(curve.thresholds[5])).data[1]
    assert (marked.name, marked.x[0], marked.y[0]) == (
        "best threshold of val",
        float(curve.far[5]),
        float(curve.tar[5]),
    )
    names = [row[0] for row in roc_table(curve).rows]
    assert names[:2] == ["equal error", "best balanced accuracy"] and names[-1] == "at most 0.0001 false"
    assert [row[0] for row in roc_table(curve, 0.3).rows] == ["best threshold of val", *names]
    plot = roc_plot(curve)
    assert plot.data[0].customdata[0] == pytest.approx(float(curve.thresholds[0]))
    long = type(curve)(*(torch.linspace(0, 1, 50_000, dtype=torch.float64) for _ in range(3)))
    assert 200 < len(roc_plot(long).data[0].x) <= 400


def test_pca_is_that_of_an_svd() -> None:
    rows = items().embeddings.double()
    plane, share = maps.pca(rows, torch.arange(30))
    centred = rows - rows.mean(dim=0)
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    torch.testing.assert_close(plane.abs(), (centred @ axes[:2].T).abs())
    assert share == pytest.approx(float((values[:2] ** 2).sum() / (values**2).sum()))
    assert maps.pca(torch.rand(5, 1), torch.arange(5))[0].shape == (5, 2)


def test_umap_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, n_components: int, n_neighbors: int, random_state: int) -> None:
            assert (n_components, n_neighbors, random_state) == (2, 15, 0)

        def fit_transform(self, rows: Any) -> Any:
            return rows[:, :2]

    rows = torch.rand(20, 4)
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Fake))
    plane = maps.umap(rows)
    assert plane is not None and torch.equal(plane.float(), rows[:, :2])
    assert maps.umap(rows[:3]) is None, "too few for a map"
    monkeypatch.setitem(sys.modules, "umap", None)
    assert maps.umap(rows) is None


def test_two_planes_get_a_switch() -> None:
    planes = {"PCA": torch.zeros(3, 2), "UMAP": torch.ones(3, 2)}
    plot = maps.map_plot(planes, [4, 5, 6], [True, False, None])
    assert [trace.name for trace in plot.data] == ["right at rank 1", "wrong at rank 1", "no query"]
    assert [button.label for button in plot.layout.updatemenus[0].buttons] == ["PCA", "UMAP"]
    assert not maps.map_plot({"PCA": torch.zeros(3, 2)}, [4, 5, 6], [True] * 3).layout.updatemenus


def test_pictures_are_small_and_texts_are_cut() -> None:
    assert data_uri(Image.new("RGB", (300, 200))).startswith("data:image/webp;base64,")
    assert len(data_uri(Image.new("L", (300, 200)))) < 500
    found = album([3, 1, 3], {}, lambda ids: ["long " * 100 if id == 1 else "short" for id in ids], None)
    assert found[3] == Look(name="class unknown", title="class unknown, sample 3", text="short", picture=None)
    assert found[1]["text"] == f"{'long ' * 56}…"
    look = album([5], {5: 2}, None, None)[5]
    assert look == Look(name="class 2", title="class 2, sample 5", text="sample 5, class 2", picture=None)
    text = '<span class="shot text" title="class 2, sample 5">sample 5, class 2</span>'
    assert macro("sample", 5, look) == text


def test_show_must_return_a_picture_or_a_text_for_each_sample() -> None:
    with pytest.raises(UserError, match=r"datamodule.show: expected 2 pictures or texts, got 1"):
        album([1, 2], {}, lambda ids: ["one"], None)
    with pytest.raises(UserError, match=r"datamodule.show: expected a PIL image or a str for each sample, got int"):
        album([1], {}, lambda ids: [3], None)  # type: ignore[list-item]


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
