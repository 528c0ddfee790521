"""Tests of what each reader reads from its published layout."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import PublishedDataModule
from datamodules.published import LFW
from tests.helpers import published_trees
from tests.helpers.published_copies import READERS, module


@pytest.mark.parametrize(
    ("name", "sizes", "test_classes"),
    [
        ("cub", (9, 3, 12), [f"{number}.Bird_{number}" for number in range(101, 105)]),
        ("cars", (6, 2, 8), [f"{number:03d} Car {number} Sedan" for number in range(99, 103)]),
        ("sop", (6, 2, 8), [f"product 0000{label}" for label in range(5, 9)]),
        ("in_shop", (12, 4, 16), [f"id_0000000{label}" for label in range(5, 9)]),
        ("market", (24, 6, 51), [*[f"0000_c{n % 3 + 1}s1_{n:06d}_01" for n in (0, 3, 6, 1, 4, 2, 5)], *"1345"]),
        ("lfw", (18, 6, 12), [f"{letter}_Person" for letter in "IJKL"]),
        ("omniglot", (27, 9, 12), [f"Alphabet_{a}/character0{n}" for a in "YZ" for n in (1, 2)]),
    ],
)
def test_the_official_test_and_a_validation_of_other_classes(
    made: Callable[[str], Path], name: str, sizes: tuple[int, ...], test_classes: list[str]
) -> None:
    data = module(made(name), name)
    data.prepare_data()
    data.setup("fit")
    samples = data.samples
    assert tuple(len(ids) for ids in samples.splits.values()) == sizes
    found = [samples.class_name(label) for label in sorted(set(samples.labels[samples.splits["test"]].tolist()))]
    assert found == [word.rjust(4, "0") if len(word) == 1 else word for word in test_classes]
    assert data.classes_trained_on("test") == data.classes_trained_on("val") == 0
    batch = next(iter(data.train_dataloader()))
    assert batch.inputs.shape == (4, 3, 8, 8)
    seen = {int(label): picture[:, 4, 4] for picture, label in zip(batch.inputs, batch.labels, strict=True)}
    assert len(seen) == 2, "P classes"
    other = module(data_root(data), name, split_seed=3).samples.splits
    assert torch.equal(other["test"], samples.splits["test"]), "test is the official one"


def data_root(data: PublishedDataModule) -> Path:
    return Path(data.root)


def test_every_image_is_of_its_class(made: Callable[[str], Path]) -> None:
    """Check that the class occurs in the path, as it does in these data sets."""
    for name, pattern in (
        ("cub", r"/(\d{3}\.Bird_\d+)/"),
        ("sop", r"/(\d)_\d\.JPG"),
        ("omniglot", r"/(Al.*)/"),
        ("lfw", r"/(._Person)/"),
    ):
        samples = module(made(name), name).samples
        for row, label in enumerate(samples.labels.tolist()):
            found = re.search(pattern, samples.fetch.paths[row])  # type: ignore[attr-defined]
            assert found is not None and samples.class_name(label).endswith(found[1])


def test_cars_has_two_published_forms(tmp_path: Path) -> None:
    published_trees.cars_devkit(tmp_path / "cars")
    samples = module(tmp_path / "cars", "cars").samples
    assert tuple(len(ids) for ids in samples.splits.values()) == (6, 2, 8)
    assert samples.class_name(int(samples.labels[7])) == "102 Car 102 Sedan"
    (tmp_path / "cars/cars_test_annos_withlabels.mat").rename(tmp_path / "cars/devkit/cars_test_annos_withlabels.mat")
    assert torch.equal(module(tmp_path / "cars", "cars").samples.labels, samples.labels)


@pytest.mark.parametrize(("name", "box"), [("cub", [6, 2, 10, 5]), ("cars", [2, 1, 6, 5])])
def test_boxes_are_cut_out(made: Callable[[str], Path], name: str, box: list[int]) -> None:
    root = made(name)
    data = module(root, name, read=type(READERS[name])(crop=True))  # type: ignore[call-arg]
    assert data.samples.fetch.boxes[0].tolist() == box  # type: ignore[attr-defined]
    path = Path(data.samples.fetch.paths[0])  # type: ignore[attr-defined]
    with Image.open(path) as image:
        pixels = np.zeros((*image.size[::-1], 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    Image.fromarray(pixels).save(path, "PNG")
    white = []
    for read in (READERS[name], type(READERS[name])(crop=True)):  # type: ignore[call-arg]
        white.append(float((module(root, name, read=read).samples.fetch(torch.tensor([0])) > 0).float().mean()))
    assert white[0] < 0.6 * white[1], "more of it is seen"


def test_queries_and_gallery_of_in_shop(made: Callable[[str], Path]) -> None:
    data = module(made("in_shop"), "in_shop")
    splits, queries = data.samples.splits, data.queries
    assert queries is not None
    assert queries[splits["test"]].tolist() == [True, False] * 8, "as published"
    assert queries[splits["val"]].tolist() == [True, False] * 2, "every other one"


def test_whole_alphabets_are_held_out(made: Callable[[str], Path]) -> None:
    root = made("omniglot")
    for settings in ({}, {"fold": 0, "folds": 4}, {"fold": 3, "folds": 4}):
        samples = module(root, "omniglot", **settings).samples
        of_split = {
            split: {samples.class_name(label).split("/")[0] for label in samples.labels[ids].tolist()}
            for split, ids in samples.splits.items()
        }
        assert len(of_split["val"]) == 1 and len(of_split["train"]) == 3
        assert not of_split["val"] & of_split["train"]
        assert of_split["test"] == {"Alphabet_Y", "Alphabet_Z"}


def test_the_second_view_of_lfw(made: Callable[[str], Path]) -> None:
    root = made("lfw")
    data = module(root, "lfw", read=LFW(view=2))
    samples = data.samples
    tested = {samples.class_name(label) for label in samples.labels[samples.splits["test"]].tolist()}
    assert tested == {f"{letter}_Person" for letter in "ABCDEF"}
    assert data.classes_trained_on("test") == 0
    assert samples.listed is not None and samples.listed.pairs[:2].tolist() == [[0, 1], [0, 3]]
    assert data.pair_folds is not None and data.pair_folds.tolist() == [0, 0, 1, 1, 2, 2]
    first = module(root, "lfw")
    assert first.pairs is not None and len(first.pairs) == 4
    assert first.pair_folds is None, "a single fold is none"
