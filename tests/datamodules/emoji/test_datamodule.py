"""Tests of the shipped data set: contents, split, and that pixels belong to their labels."""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from datamodules.emoji import datamodule
from datamodules.emoji.datamodule import FOLDER, EmojiDataModule, read_images, read_index
from datamodules.sources.images_in_memory import ImagesInMemory
from metric_module.errors import UserError
from metric_module.preprocessing.images import resize


@pytest.fixture(scope="module")
def data() -> EmojiDataModule:
    """Make the data set at half the size of its tiles."""
    return EmojiDataModule(image_size=32)


@pytest.mark.parametrize(
    ("name", "checksum"),
    [
        ("emoji.png", "f065b88e00ecf01e96ac7ade5f61a4a86a72617d61dab49d808c24805a1a5bb3"),
        ("emoji.csv", "ae7025d837d54e1150112eb68b90a7a044df8ea275d4445cb207d9cbf845e815"),
    ],
)
def test_files_are_those_that_were_built(name: str, checksum: str) -> None:
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == checksum


def test_every_family_is_attributed() -> None:
    text = (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    _, families = read_index(FOLDER)
    for family in set(families):
        row = next(line for line in text.splitlines() if line.startswith(f"| {family} ("))
        assert f"| {families.count(family)} |" in row
    assert "Twitter, Inc and other contributors" in text
    assert "openmoji" not in text


def test_figures_of_the_data_set(data: EmojiDataModule) -> None:
    labels, splits = data.samples.labels, data.samples.splits
    assert len(labels) == 6554
    assert sorted(set(labels.tolist())) == list(range(1055))
    assert labels.bincount().bincount().tolist() == [0, 0, 0, 0, 0, 3, 825, 227]
    assert {name: len(set(labels[ids].tolist())) for name, ids in splits.items()} == {
        "train": 633,
        "val": 211,
        "test": 211,
    }
    assert torch.cat(list(splits.values())).sort().values.tolist() == list(range(6554))
    assert not set(labels[splits["train"]].tolist()) & set(labels[splits["test"]].tolist())


def test_siblings_share_a_group(data: EmojiDataModule) -> None:
    classes, families = read_index(FOLDER)
    assert data.groups is not None
    group = {family: int(data.groups[families.index(family)]) for family in families}
    assert group["noto"] == group["noto-v1"] != group["twemoji"]
    assert group["fluent-emoji"] == group["fluent-emoji-flat"] != group["emojione"]
    assert len(set(group.values())) == 5
    assert [group[family] for family in families] == data.groups.tolist()
    assert [data.samples.class_names[label] for label in data.samples.labels.tolist()] == classes


def test_the_split_follows_split_seed_alone(data: EmojiDataModule) -> None:
    test = data.samples.splits["test"].tolist()
    for options, same in (({"seed": 1}, True), ({"split_seed": 1}, False)):
        other = EmojiDataModule(image_size=4, **options)  # type: ignore[arg-type]
        assert (other.samples.splits["test"].tolist() == test) is same
    names = "\n".join(sorted({data.samples.class_names[label] for label in data.samples.labels[test].tolist()}))
    assert hashlib.sha256(names.encode()).hexdigest().startswith("c7b5d6422962dbf2"), "the split is for good"
    larger = EmojiDataModule(image_size=4, fractions=(0.7, 0.1, 0.2)).samples
    assert [len(set(larger.labels[ids].tolist())) for ids in larger.splits.values()] == [738, 106, 211]


def test_default_size_is_the_area_average_of_the_sheet(data: EmojiDataModule) -> None:
    whole = read_images(FOLDER, 10, 64).double()
    average = whole.view(10, 3, 32, 2, 32, 2).mean(dim=(3, 5))
    images = data.samples.fetch(torch.arange(10))
    assert images.dtype == torch.float32
    assert images.shape == (10, 3, 32, 32)
    assert ((images.double() + 1) * 127.5 - average).abs().max() <= 0.5 + 1e-4
    assert images[:, :, 0, 0].eq(1).any()


def test_tiles_are_where_the_index_says() -> None:
    with Image.open(FOLDER / "emoji.png") as sheet:
        left, top = 6553 % 64 * 64, 6553 // 64 * 64
        tile = torch.frombuffer(
            bytearray(sheet.crop((left, top, left + 64, top + 64)).convert("RGB").tobytes()), dtype=torch.uint8
        )
    assert torch.equal(read_images(FOLDER, 6554, 64)[-1], tile.view(64, 64, 3).permute(2, 0, 1))


def test_labels_belong_to_pixels(data: EmojiDataModule) -> None:
    ids = data.samples.splits["test"]
    pixels = data.samples.fetch(ids).flatten(1)
    labels = data.samples.labels[ids]
    distances = torch.cdist(pixels, pixels).fill_diagonal_(torch.inf)
    recall = (labels[distances.argmin(dim=1)] == labels).float().mean()
    assert 0.5 < recall < 0.57, "raw pixels find the class of about every second unseen emoji"


@pytest.mark.parametrize("size", [20, 64, 96])
def test_other_sizes(size: int) -> None:
    images = read_images(FOLDER, 3, 64).float().div(127.5).sub(1)
    found = ImagesInMemory(read_images(FOLDER, 3, min(size, 64)), size)(torch.arange(3))
    expected = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(found, expected, atol=0.5 / 127.5 + 1e-5, rtol=0)


def test_resize_averages_areas_only_where_they_are_whole() -> None:
    image = torch.arange(64.0).view(1, 1, 8, 8)
    assert resize(image, 4)[0, 0, 0].tolist() == [4.5, 6.5, 8.5, 10.5]
    assert resize(image, 8) is image
    assert resize(image, 5).shape == (1, 1, 5, 5)


def test_bad_size() -> None:
    with pytest.raises(UserError, match="image_size: expected an integer >= 1, got 0"):
        EmojiDataModule(image_size=0)


def test_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datamodule, "FOLDER", tmp_path)
    with pytest.raises(
        UserError, match=r"no file .*emoji\.csv: it ships with the package; install lightning-triplets again"
    ):
        EmojiDataModule().setup("fit")
    shutil.copy(FOLDER / "emoji.csv", tmp_path)
    with pytest.raises(UserError, match=r"no file .*emoji\.png"):
        EmojiDataModule().setup("fit")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"emoji\.csv is damaged: .* got header \[\]"),
        ([["name", "family"], ["cat", "noto"]], r"damaged: .* got header \['name', 'family'\]"),
        ([["class", "family"], ["cat"]], "is damaged: expected rows of class,family"),
        (
            [["class", "family"], ["cat", "nota"], ["cat", "noto"]],
            r"unknown families nota: expected some of emojione, ",
        ),
    ],
)
def test_damaged_index(tmp_path: Path, rows: list[list[str]], message: str) -> None:
    with (tmp_path / "emoji.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(UserError, match=message):
        read_index(tmp_path)


def test_damaged_sheet(tmp_path: Path) -> None:
    sheet = (FOLDER / "emoji.png").read_bytes()
    (tmp_path / "emoji.png").write_bytes(sheet[: len(sheet) // 2])
    with pytest.raises(UserError, match=r"emoji\.png is damaged: image file is truncated"):
        read_images(tmp_path, 6554, 32)
    (tmp_path / "emoji.png").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"emoji\.png is damaged: cannot identify image"):
        read_images(tmp_path, 6554, 32)
    Image.new("RGB", (128, 64)).save(tmp_path / "emoji.png")
    with pytest.raises(UserError, match=r"emoji\.png is damaged: expected a palette image, got mode RGB"):
        read_images(tmp_path, 2, 32)
    Image.new("P", (128, 64)).save(tmp_path / "emoji.png")
    with pytest.raises(UserError, match="is damaged: expected at least 3 tiles, got 2"):
        read_images(tmp_path, 3, 32)


def test_folds_leave_test_alone_whatever_the_seed(data: EmojiDataModule) -> None:
    held: list[int] = []
    for fold in range(4):
        samples = EmojiDataModule(fold=fold, seed=fold, image_size=8).samples
        assert torch.equal(samples.splits["test"], data.samples.splits["test"])
        train, val = (set(samples.labels[samples.splits[name]].tolist()) for name in ("train", "val"))
        assert (len(train), len(val)) == (633, 211) and not train & val
        held += val
    assert len(set(held)) == len(held) == 844


def test_what_is_shown_is_the_drawing() -> None:
    data = EmojiDataModule(image_size=64)
    pictures = data.show([7, 3])
    for id, picture in zip((7, 3), pictures, strict=True):
        assert isinstance(picture, Image.Image)
        expected = read_images(FOLDER, id + 1, 64)[id]
        assert torch.equal(
            torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(64, 64, 3), expected.permute(1, 2, 0)
        )
    assert data.class_names_of([7]) == [data.samples.class_names[int(data.samples.labels[7])]]
