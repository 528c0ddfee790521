"""Pictures and texts of samples."""

from __future__ import annotations

import pytest
from PIL import Image

from metric_module import UserError
from metric_module.report.samples.album import Look, album, data_uri
from tests.metric_module.report.test_page import macro


def test_pictures_are_small_and_texts_are_cut() -> None:
    assert data_uri(Image.new("RGB", (300, 200))).startswith("data:image/webp;base64,")
    assert len(data_uri(Image.new("L", (300, 200)))) < 500
    found = album([3, 1, 3], {}, lambda ids: ["long " * 100 if id == 1 else "short" for id in ids], None)
    assert found[3] == Look(
        name="class unknown", title="class unknown, sample 3", file="sample 3", text="short", picture=None
    )
    assert found[1]["text"] == f"{'long ' * 56}…"
    look = album([5], {5: 2}, None, None)[5]
    assert look == Look(
        name="class 2", title="class 2, sample 5", file="sample 5", text="sample 5, class 2", picture=None
    )
    text = '<span class="shot text" title="class 2, sample 5">sample 5, class 2</span>'
    assert macro("sample", 5, look) == text


def test_show_must_return_a_picture_or_a_text_for_each_sample() -> None:
    with pytest.raises(UserError, match=r"datamodule.show: expected 2 pictures or texts, got 1"):
        album([1, 2], {}, lambda ids: ["one"], None)
    with pytest.raises(UserError, match=r"datamodule.show: expected a PIL image or a str for each sample, got int"):
        album([1], {}, lambda ids: [3], None)  # type: ignore[list-item]


def test_a_sample_is_named_by_its_file() -> None:
    look = album([5], {5: 2}, None, None, lambda ids: [f"cats/{id}.png" for id in ids])[5]
    assert (look["title"], look["file"]) == ("class 2, cats/5.png", "5.png")
