"""The whole page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from metric_module.report.run_page import about, body, write_report
from metric_module.report.sections import PAIRWISE
from tests.helpers.report_runs import EVIL, items, made_up

PARTS = ["figures", "training", "distances", "queries", "confused-classes", "mined-triplets", "map"]
PARTS += ["same-or-different", "set-up"]


def test_every_part_is_there_and_every_picture_once(tmp_path: Path) -> None:
    run = made_up(tmp_path)
    write_report(tmp_path / "report.html", run)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'<section id="part-([a-z-]+)">', text) == PARTS
    assert len(re.findall("data:image/webp", text)) == 30 + 6
    assert text.count("<figcaption>") == 18
    assert "None of these classes was trained on." in text
    assert not re.search(r'(?:src|href)="(?!#)', body(run))
    assert not (tmp_path / ".report.html").exists()


def test_what_comes_from_outside_is_only_text(tmp_path: Path) -> None:
    def evil(ids: Sequence[int]) -> list[str]:
        return [EVIL] * len(ids)

    run = made_up(tmp_path, show=evil, name=evil, config=EVIL, title=EVIL, versions={EVIL: EVIL})
    text = body(run._replace(figures={"test": {EVIL: 1.0}, "val": {}}))
    write_report(tmp_path / "report.html", run)
    assert "hacked" in text
    assert EVIL not in text and EVIL not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_parts_without_data_say_why(tmp_path: Path) -> None:
    bare = made_up(
        tmp_path, show=None, name=None, metrics=None, steps=None, before=None, mined={}, trained_on=None, versions={}
    )
    text = body(bare)
    assert text.count("This run trained nothing.") == 2
    assert "was not kept: this run evaluates a checkpoint" in text
    assert "sample 100, class 0" in text
    assert "Whether they were trained on, the data module does not say." in text
    assert "There is no metrics.csv in this folder" in body(bare._replace(steps=9))
    assert "None were kept: the batches have no ids" in body(bare._replace(steps=9))
    assert "There are no pairs of both kinds" in body(bare._replace(after=None))


def test_nothing_confused(tmp_path: Path) -> None:
    run = made_up(tmp_path, items=items(spread=0.0))
    assert "No query has a nearest neighbour of another class." in body(run)


def test_a_csv_without_figures(tmp_path: Path) -> None:
    run = made_up(tmp_path)
    assert run.metrics is not None
    run.metrics.write_text("step,epoch\n")
    assert "Nothing was logged" in body(run)


@pytest.mark.parametrize(("trained_on", "said"), [(0, "None of these"), (2, "2 of these"), (None, "does not say")])
def test_about(tmp_path: Path, trained_on: int | None, said: str) -> None:
    run = made_up(tmp_path, trained_on=trained_on)
    assert about(run).startswith("Read on test after 9 steps of training: 30 samples of 6 classes.")
    assert said in about(run)


def test_a_large_set_says_what_is_left_out(tmp_path: Path) -> None:
    samples = items(classes=1050, each=4)
    assert len(samples.ids) > PAIRWISE
    text = body(made_up(tmp_path, items=samples, before=None))
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
    text = body(run._replace(items=one, queries=found, after=None))
    assert text.count("There are no pairs of both kinds to compare.") == 2
