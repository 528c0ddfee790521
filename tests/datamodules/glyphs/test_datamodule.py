"""Tests of letters from fonts: selection, lookalikes and the split by script. Matplotlib provides the fonts."""

from __future__ import annotations

import builtins
import functools
import shutil
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch

from datamodules import GlyphDataModule
from datamodules.glyphs.datamodule import render_letters
from datamodules.glyphs.fonts import Face, find_lookalikes, list_faces, render
from metric_module import UserError

FONTS = Path(mpl.get_data_path()) / "fonts" / "ttf"
SERIF, SANS = FONTS / "DejaVuSerif.ttf", FONTS / "DejaVuSans.ttf"


@functools.cache
def faces(*scripts: str) -> list[Face]:
    return list_faces(FONTS, scripts)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of three font families."""
    folder = tmp_path_factory.mktemp("fonts")
    for path in (SERIF, SANS, FONTS / "DejaVuSansMono.ttf"):
        shutil.copy(path, folder)
    return folder


def module(fonts: Path, **settings: Any) -> GlyphDataModule:
    given: dict[str, Any] = {"fonts": str(fonts), "train": ["Armn"], "val": ["Grek"], "test": ["Geor"]}
    return GlyphDataModule(**{**given, "min_fonts": 2, "max_fonts": 3, "image_size": 16, **settings})


def test_a_face_of_each_family_the_plainest() -> None:
    found = {face.family: face for face in faces("Cyrl", "Grek")}
    assert found["DejaVu Serif"].path == str(SERIF), "not DejaVuSerif-Bold, which comes before"
    assert found["DejaVu Sans"].path == str(SANS)
    assert {"Ж", "я", "Ω"} <= found["DejaVu Sans"].letters
    assert not {"A", "й", "ά", "1"} & found["DejaVu Sans"].letters, "another script, accents, a digit"


def test_files_that_are_no_fonts(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/broken.ttf").write_text("no font")
    shutil.copy(SERIF, tmp_path / "deep/serif.TTF")
    assert [face.family for face in list_faces(tmp_path, ["Cyrl"])] == ["DejaVu Serif"]


def test_a_font_that_freetype_refuses_is_named_and_skipped(few: Path, tmp_path: Path) -> None:
    """A font without its table head: fontTools reads its names and letters, FreeType does not open it."""
    shutil.copytree(few, tmp_path / "fonts")
    content = (FONTS / "STIXGeneral.ttf").read_bytes()
    (tmp_path / "fonts/broken.ttf").write_bytes(content.replace(b"head", b"none", 1))
    with pytest.warns(UserWarning, match=r"^data: 1 fonts cannot be rendered, and are skipped: \S+broken.ttf \(.+\)$"):
        found = module(tmp_path / "fonts").samples
    assert torch.equal(found.labels, module(few).samples.labels)


def test_letters_are_centred_and_keep_their_size() -> None:
    images = render(str(SERIF), ["o", "O", "Щ", "\u200b"], 32)
    assert set(images) == {"o", "O", "Щ"}, "nothing without ink"
    height = {}
    for char, pixels in images.items():
        assert pixels.shape == (32, 32) and pixels.dtype == np.uint8
        rows, columns = (np.flatnonzero((pixels < 128).any(axis=axis)) for axis in (1, 0))
        height[char] = len(rows)
        for ink in (rows, columns):
            assert abs(ink[0] - (31 - ink[-1])) <= 2
    assert 0 < height["o"] < 0.85 * height["O"]


def test_wide_letters_are_set_smaller_and_placeholders_left_out() -> None:
    (pixels,) = render(str(SERIF), ["Ѿ"], 8).values()
    assert (pixels[:, 0] == 255).all() and (pixels[:, -1] == 255).all()
    missing = ["\u0378", "\u0379", "\u0380", "\u0381", "\u0382", "\u038b"]  # no such characters: one box for all
    assert set(render(str(SANS), ["Ж", *missing], 16)) == {"Ж"}


def test_lookalikes_are_removed() -> None:
    a, b, c = (np.full((2, 2), value, np.uint8) for value in (1, 2, 3))
    fonts = [
        {"A": a, "\N{CYRILLIC CAPITAL LETTER A}": a, "B": b},
        {"A": b, "\N{CYRILLIC CAPITAL LETTER A}": c, "B": a},
        {"A": c, "Б": a},
    ]
    assert find_lookalikes(fonts, ["A", "B", "\N{CYRILLIC CAPITAL LETTER A}", "Б"]) == {
        "\N{CYRILLIC CAPITAL LETTER A}"
    }, "in one font of the two that have both"
    assert find_lookalikes(fonts[1:], ["A", "B", "\N{CYRILLIC CAPITAL LETTER A}", "Б"]) == set()
    found = render_letters([face for face in faces("Latn", "Grek", "Cyrl") if face.family == "DejaVu Sans"], 24, 1, 9)
    assert {"A", "Ω", "Ж"} <= found.keys()
    assert (
        not {
            "\N{GREEK CAPITAL LETTER ALPHA}",
            "\N{CYRILLIC CAPITAL LETTER A}",
            "\N{CYRILLIC CAPITAL LETTER VE}",
            "\N{GREEK CAPITAL LETTER OMICRON}",
        }
        & found.keys()
    ), "Greek Alpha, Cyrillic A and Ve, Omicron"


def test_equal_images_of_a_letter_come_once() -> None:
    face = next(face for face in faces("Cyrl") if face.family == "DejaVu Sans")
    letter = face._replace(letters=frozenset("Ж"))
    other = Face("DejaVu Serif", str(SERIF), frozenset("Ж"))
    assert len(render_letters([letter, letter, other], 16, 2, 9)["Ж"]) == 2
    assert render_letters([letter, letter], 16, 2, 9) == {}
    assert len(render_letters([letter, letter, other], 16, 1, 1)["Ж"]) == 1


def test_scripts_are_held_out(few: Path) -> None:
    data = module(few)
    data.prepare_data()
    data.setup("fit")
    of_split = {
        split: {data.samples.class_name(label).split()[0] for label in data.samples.labels[ids].tolist()}
        for split, ids in data.samples.splits.items()
    }
    assert of_split == {"train": {"Armn"}, "val": {"Grek"}, "test": {"Geor"}}
    assert sum(len(ids) for ids in data.samples.splits.values()) == len(data.samples.labels)
    batch = next(iter(module(few, classes_per_batch=4, samples_per_class=2, class_turns=1.0).train_dataloader()))
    assert batch.inputs.shape == (8, 1, 16, 16)
    assert batch.inputs.min() < -0.5 and batch.inputs.max() == 1, "black on white"
    assert torch.equal(module(few, class_turns=1.0).augment_batch(batch, 0).labels // 8, batch.labels)
    held = module(few, train=["Armn", "Cyrl"], fold=1, folds=3).samples
    scripts = {held.class_name(label).split()[0] for label in held.labels[held.splits["val"]].tolist()}
    assert len(scripts) == 1, "a fold is a script, not a share of the letters"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 0}, "image_size: expected an integer >= 1, got 0"),
        ({"channels": 4}, "datamodule.channels: expected 1 or 3, got 4"),
        ({"class_turns": 2}, "expected 0 <= class_turns <= 1, got 2"),
        ({"min_fonts": 1}, "expected 2 <= min_fonts <= max_fonts, got 1 and 3"),
        ({"min_fonts": 4}, "expected 2 <= min_fonts <= max_fonts, got 4 and 3"),
        ({"val": ["Armn"]}, "datamodule: scripts listed more than once in train, val and test: Armn"),
        ({"fractions": (0.5, 0.2, 0.3)}, "datamodule.fractions: the scripts of train, val and test are the split"),
        ({"val": ["Klingon"]}, "datamodule: unknown scripts Klingon: expected ISO 15924 codes, such as Latn"),
        ({"test": ["Thai"]}, r"no letters of at least 2 families in Thai; install fonts \(docs/recipes/glyphs.md\)"),
        ({"fonts": "nowhere"}, "datamodule.fonts: no such folder: nowhere"),
    ],
)
def test_bad_arguments(few: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        module(**{"fonts": few, **settings}).setup("fit")


def test_without_font_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        """Pretend that fontTools is missing."""
        if name.startswith("fontTools"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"glyphs need fontTools: pip install 'lightning-triplets\[fonts\]'"):
        list_faces(FONTS, ["Cyrl"])
