"""Tests of the emoji builder, on small hand-made packages."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import emoji_sheet
from benchmarks.emoji_sheet import STORED, VERSIONS, choose, draw, fetch, icon_names, main, read_package, require_resvg
from datamodules.emoji.datamodule import read_images, read_index
from metric_module.errors import UserError

SQUARE = '<path fill="#f00" d="M0 0h{side}v{side}H0z"/>'
INFO = {
    "name": "Some Emoji",
    "author": {"name": "Someone", "url": "https://example.org"},
    "license": {"spdx": "MIT", "url": "https://example.org/licence"},
}


def family(**icons: dict[str, Any]) -> dict[str, Any]:
    """Make a family of icons in a box of 16 x 16."""
    return {"icons": {name.replace("_", "-"): icon for name, icon in icons.items()}, "width": 16, "height": 16}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Write tarballs of nine families that draw ``dot`` and ``box``; only openmoji has no ``dot``."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for number, (name, version) in enumerate(VERSIONS.items()):
        content = family(dot={"body": SQUARE.format(side=number + 1)}, box={"body": SQUARE.format(side=16)})
        if name == "openmoji":
            del content["icons"]["dot"]
        with tarfile.open(folder / f"iconify-json-{name}-{version}.tgz", "w:gz") as archive:
            for part, text in (("icons", json.dumps(content)), ("info", json.dumps(INFO))):
                member = tarfile.TarInfo(f"package/{part}.json")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
    return folder


def expect(monkeypatch: pytest.MonkeyPatch, classes: int, images: int, per_class: tuple[int, int]) -> None:
    """Change the counts that the builder expects."""
    monkeypatch.setattr(emoji_sheet, "CLASSES", classes)
    monkeypatch.setattr(emoji_sheet, "IMAGES", images)
    monkeypatch.setattr(emoji_sheet, "PER_CLASS", per_class)


def test_names_of_icons_and_plain_aliases() -> None:
    content = family(cat={"body": ""}, dog={"body": "", "hidden": True}, hand_skin_tone={"body": ""})
    content["aliases"] = {
        "kitty": {"parent": "cat"},
        "left-cat": {"parent": "cat", "hFlip": True},
        "puppy": {"parent": "dog"},
        "cat-skin-tone": {"parent": "cat"},
    }
    assert icon_names(content) == {"cat": "cat", "kitty": "cat"}


def test_build_from_packages_twice(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resvg_py")
    expect(monkeypatch, 2, 14, (7, 7))
    for out in ("one", "two"):
        main(["--packages", str(packages), "--out", str(tmp_path / out)])
    for name in ("emoji.png", "emoji.csv", "ATTRIBUTION.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    classes, families = read_index(tmp_path / "one")
    assert classes == ["box"] * 7 + ["dot"] * 7
    assert families == [*STORED, *STORED]
    images = read_images(tmp_path / "one", 14, 64)
    assert (images[0, 0] == 255).all() and (images[0, 1:] == 0).all()
    red = (images[7:, 1] == 0).sum(dim=(1, 2))
    assert red.tolist() == [((list(VERSIONS).index(name) + 1) * 4) ** 2 for name in STORED]
    text = (tmp_path / "one" / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "| noto (Some Emoji), npm `@iconify-json/noto` 1.2.9 | 2 | Someone | https://example.org | [MIT](" in text


def test_wrong_counts(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    families = {name: read_package(packages, name) for name in VERSIONS}
    with pytest.raises(UserError, match=r"expected 1055 classes, 6554 images and 5 to 7 .* got 2, 14 and 7 to 7"):
        choose(families)
    for name in ("noto", "noto-v1"):
        del families[name]["icons"]["dot"]
    expect(monkeypatch, 1, 7, (7, 7))
    assert {name for name, _, _ in choose(families)} == {"box"}, "six families of nine draw dot"


@pytest.mark.parametrize(
    ("box", "red"),
    [
        ({}, (slice(0, 32), slice(0, 32))),
        ({"width": 8, "height": 8}, (slice(0, 64), slice(0, 64))),
        ({"left": -4, "top": 4}, (slice(0, 16), slice(16, 48))),
        ({"height": 32}, (slice(0, 16), slice(16, 32))),
    ],
)
def test_an_icon_may_have_a_box_of_its_own(box: dict[str, int], red: tuple[slice, slice]) -> None:
    pytest.importorskip("resvg_py")
    image = draw(family(icon={"body": SQUARE.format(side=8), **box}), "icon")
    expected = np.full((64, 64, 3), 255, np.uint8)
    expected[red] = [255, 0, 0]
    assert (image == expected).all()


def test_packages_that_are_missing_or_broken(packages: Path) -> None:
    path = packages / "iconify-json-noto-1.2.9.tgz"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"noto-1\.2\.9\.tgz is not an icon package: "):
        read_package(packages, "noto")
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("package/icons.json"))
    with pytest.raises(UserError, match="is not an icon package: Expecting value"):
        read_package(packages, "noto")
    path.unlink()
    with pytest.raises(
        UserError, match=r"no iconify-json-noto-1\.2\.9\.tgz in .*: expected .* @iconify-json/noto@1\.2\.9"
    ):
        read_package(packages, "noto")


def test_packages_come_from_npm_if_not_given(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def npm(command: list[str], **options: object) -> None:
        calls.append(command)
        for path in packages.iterdir():
            (Path(command[-1]) / path.name).write_bytes(path.read_bytes())

    monkeypatch.setattr(subprocess, "run", npm)
    pytest.importorskip("resvg_py")
    with pytest.raises(UserError, match="got 2, 14 and 7 to 7"):
        main(["--out", str(tmp_path / "out")])
    assert calls[0][:2] == ["npm", "pack"]
    assert "@iconify-json/fluent-emoji@1.2.7" in calls[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (FileNotFoundError("no npm here"), "no npm here"),
        (subprocess.CalledProcessError(1, "npm", stderr=b"404\n"), "404$"),
    ],
)
def test_npm_fails(error: Exception, detail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(UserError, match=f"npm could not fetch @iconify-json/emojione@1.2.3, .*: {detail}"):
        fetch(tmp_path)


def test_another_rasteriser_would_draw_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emoji_sheet, "version", lambda name: "0.4.1")
    with pytest.raises(UserError, match=r"needs resvg-py 0\.5\.0, found 0\.4\.1: pip install resvg-py==0\.5\.0"):
        require_resvg()

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(emoji_sheet, "version", missing)
    with pytest.raises(UserError, match=r"needs resvg-py 0\.5\.0, found none"):
        require_resvg()
