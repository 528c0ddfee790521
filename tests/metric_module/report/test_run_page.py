"""The whole page of a run: its sections, escaping, and messages for missing data."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from metric_module.report.run_page import PAIRWISE, about, run_page, start, write_report
from tests.helpers.report_runs import EVIL, items, made_up

SECTIONS = ["figures", "training", "distances", "queries", "confused-classes", "mined-triplets", "map"]
SECTIONS += ["same-or-different", "set-up"]


def test_every_section_is_there_and_every_picture_once(tmp_path: Path) -> None:
    run = made_up(tmp_path)
    write_report(tmp_path / "report.html", run)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'<section id="part-([a-z-]+)">', text) == SECTIONS
    assert len(re.findall("data:image/webp", text)) == 30 + 6
    assert text.count("<figcaption>") == 18
    assert "None of these classes was trained on." in text
    assert not re.search(r'(?:src|href)="(?!#)', run_page(run).split("</head>")[1])
    assert not (tmp_path / ".report.html").exists()


def test_the_script_finds_every_sample_by_its_id(tmp_path: Path) -> None:
    text = run_page(made_up(tmp_path))
    found = re.search(r'id="album">(.*?)</script>', text)
    assert found is not None
    album = json.loads(found[1])
    assert set(re.findall(r'<img class="shot" data-id="(\d+)"', text)) <= set(album)
    assert album["104"]["title"] == "animal 0, sample 104" and album["104"]["text"] is None
    assert album["104"]["picture"].startswith("data:image/webp;base64,")


def test_a_closed_set_is_named(tmp_path: Path) -> None:
    closed = {"map_at_r": 0.5, "classes": 6.0, "classes_trained_on": 6.0}
    run = made_up(tmp_path, figures={"val": closed, "test": closed}, trained_on=6)
    said = "Closed set: 6 of the 6 classes of test were trained on, so its figures are not those of unseen classes."
    assert about(run).endswith(f"classes. {said}") and "trained on" not in about(run).replace(said, "")
    assert about(run._replace(pairs=True)).endswith(f"queries and references. {said}")
    assert ">test (closed set)<" in run_page(run) and ">val (closed set)<" in run_page(run)


def test_text_from_outside_is_not_read_as_html(tmp_path: Path) -> None:
    def evil(ids: Sequence[int]) -> list[str]:
        return [EVIL] * len(ids)

    run = made_up(tmp_path, show=evil, name=evil, config=EVIL, title=EVIL, versions={EVIL: EVIL})
    text = run_page(run._replace(figures={"test": {EVIL: 1.0}, "val": {}}))
    assert "hacked" in text and EVIL not in text


def test_sections_without_data_say_why(tmp_path: Path) -> None:
    bare = made_up(
        tmp_path, show=None, name=None, metrics=None, steps=None, before=None, mined={}, trained_on=None, versions={}
    )
    text = run_page(bare)
    assert text.count("This run trained nothing.") == 2
    assert "were not recorded: this run evaluates a checkpoint" in text
    assert "sample 100, class 0" in text
    assert "It is not known whether they were trained on." in text
    assert "There is no metrics.csv in this folder" in run_page(bare._replace(steps=9))
    assert "None were recorded: the batches have no ids" in run_page(bare._replace(steps=9))
    assert "There are no pairs of both kinds" in run_page(bare._replace(after=None))


def test_nothing_confused(tmp_path: Path) -> None:
    run = made_up(tmp_path, items=items(spread=0.0))
    assert "No query has a nearest neighbour of another class." in run_page(run)


def test_a_csv_without_figures(tmp_path: Path) -> None:
    run = made_up(tmp_path)
    assert run.metrics is not None
    run.metrics.write_text("step,epoch\n")
    assert "Nothing was logged" in run_page(run)


@pytest.mark.parametrize(("trained_on", "expected"), [(0, "None of these"), (2, "2 of these"), (None, "It is not")])
def test_about(tmp_path: Path, trained_on: int | None, expected: str) -> None:
    run = made_up(tmp_path, trained_on=trained_on)
    assert about(run).startswith("Read on test after 9 steps of training: 30 samples of 6 classes.")
    assert expected in about(run)


def test_a_large_set_says_what_is_left_out(tmp_path: Path) -> None:
    samples = items(classes=1050, each=4)
    assert len(samples.ids) > PAIRWISE
    text = run_page(made_up(tmp_path, items=samples, before=None))
    assert "300 of 4,200 queries are here: the 200 worst by MAP@R" in text
    assert "1,500 of 4,200 samples are drawn" in text
    assert "4,000 of 4,200 samples, whole classes, are paired" in text
    assert "The 20 worst of" in text


def test_one_class_has_no_curve(tmp_path: Path) -> None:
    run = made_up(tmp_path)
    rows = torch.arange(5)
    one = run.items._replace(
        embeddings=run.items.embeddings[:5], labels=run.items.labels[:5], ids=run.items.ids[:5], gallery=rows
    )
    found = run.queries._replace(**{name: part[:5] for name, part in run.queries._asdict().items()})
    text = run_page(run._replace(items=one, queries=found, after=None))
    assert text.count("There are no pairs of both kinds to compare: that takes two classes") == 2


def test_samples_are_named_wherever_they_are_shown(tmp_path: Path) -> None:
    """Queries, neighbours, confused classes and triplets have the file in a caption, and its folder in the title."""
    text = run_page(made_up(tmp_path, names=lambda ids: [f"folder/{id}.png" for id in ids]))
    shown = re.findall(r'<img class="shot" data-id="(\d+)" alt="[^"]*, folder/(\d+).png"', text)
    assert shown and all(id == file for id, file in shown)
    parts = {part: text.split(f'id="part-{part}"')[1].split("</section>")[0] for part in SECTIONS[3:6]}
    assert [parts[part].count(".png</span>") for part in ("queries", "mined-triplets")] == [30 * 7, 18]
    assert re.search(r'<span class="file">\d+.png and \d+.png</span>', parts["confused-classes"])


START = {"raw": {"map_at_r": 0.4}, "before": {"map_at_r": 0.3}, "val": {"map_at_r": 0.6, "best_step": 0.0}}
BEFORE = "before is the encoder at step 0"
RAW = "raw is the inputs themselves (pixels, vectors, or character TF-IDF of texts) under Euclidean distance"
SAME = "On the same samples as val, before the first step: "
BEST = "best_step is the step of the best checkpoint; 0 is the encoder before training."


@pytest.mark.parametrize(
    ("missing", "reason", "expected"),
    [
        ((), None, f"{SAME}{BEFORE}, {RAW}. {BEST}"),
        (("raw",), "no <shape>", f"{SAME}{BEFORE}. The inputs themselves were not measured: no <shape>. {BEST}"),
        (("before",), None, f"{SAME}{RAW}. {BEST}"),
        (("before", "raw"), "none", f"The inputs themselves were not measured: none. {BEST}"),
        (("raw", "before", "val"), None, ""),
    ],
)
def test_the_figures_from_before_training_are_explained(
    tmp_path: Path, missing: Sequence[str], reason: str | None, expected: str
) -> None:
    figures = {name: row for name, row in START.items() if name not in missing}
    run = made_up(tmp_path, raw_absent=reason, figures={**figures, "test": {"map_at_r": 0.5}})
    assert start(run) == expected
    assert f'<p class="muted">{html.escape(expected)}</p>' in run_page(run) or not expected


def test_a_training_that_did_not_help_is_a_warning(tmp_path: Path) -> None:
    run = made_up(tmp_path, stage="val", monitor="val/map_at_r", figures=START)
    assert "did not help" not in run_page(run)
    text = run_page(run._replace(no_help=f"training did not help: {EVIL}"))
    warning = text.split('<h2>Figures</h2>\n<p class="card bad">')[1].split("</p>")[0]
    assert html.unescape(warning) == f"Warning: training did not help: {EVIL}" and EVIL not in text


def test_the_lines_in_the_training_curve_are_explained(tmp_path: Path) -> None:
    run = made_up(tmp_path, stage="val", monitor="val/map_at_r", figures=START)
    text = run_page(run)
    assert text.count("Dashed lines: val/map_at_r of the same samples, before the first step.") == 1
    plot = json.loads(text.split('data-figure="validation">')[1].split("</script>")[0])
    assert [line["y0"] for line in plot["layout"]["shapes"]] == [0.3, 0.4]
    assert "Dashed lines" not in run_page(run._replace(figures={"val": START["val"]}))
