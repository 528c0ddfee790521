"""Tests of messages about broken or incomplete copies: one line that names what is missing or wrong."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from datamodules.published import CUB, Cars
from metric_module import UserError
from tests.helpers import published_trees
from tests.helpers.published_copies import READERS, module


@pytest.mark.parametrize(
    ("name", "lost", "message"),
    [
        ("cub", "images.txt", r"no file .*/cub/images.txt$"),
        ("cub", "bounding_boxes.txt", r"no file .*/cub/bounding_boxes.txt$"),
        ("cars", "cars_annos.mat", r"Cars196 in .*: expected cars_annos.mat or devkit/cars_meta.mat, found neither$"),
        ("sop", "Ebay_test.txt", r"no file .*/sop/Ebay_test.txt$"),
        ("in_shop", "Eval/list_eval_partition.txt", r"no file .*/Eval/list_eval_partition.txt$"),
        ("market", "query", r"no folder .*/market/query$"),
        ("lfw", "peopleDevTest.txt", r"no file .*/lfw/peopleDevTest.txt$"),
        ("lfw", "pairsDevTest.txt", r"no file .*/lfw/pairsDevTest.txt$"),
        ("omniglot", "images_evaluation", r"no folder .*/omniglot/images_evaluation$"),
        (
            "cub",
            "images/002.Bird_2/Bird_2_0001.jpg",
            r"CUB-200-2011 in .*: expected 24 images, found 23; first missing: images/002.Bird_2/Bird_2_0001.jpg$",
        ),
        (
            "lfw",
            "lfw/C_Person",
            r"LFW in .*: expected 36 images, found 33; first missing: lfw/C_Person/C_Person_0001.jpg$",
        ),
    ],
)
def test_missing_files_are_named(made: Callable[[str], Path], name: str, lost: str, message: str) -> None:
    root = made(name)
    (root / lost).rename(root.parent / "lost")
    read = CUB(crop=True) if "boxes" in lost else READERS[name]
    with pytest.raises(UserError, match=message) as error:
        module(root, name, read=read).setup("fit")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "cub",
            "11,788 images, found 24; 5,864 training images, found 12; "
            "100 training classes, found 4; 5,924 test images, found 12; 100 test classes, found 4",
        ),
        (
            "cars",
            "16,185 images, found 16; 8,054 training images, found 8; "
            "98 training classes, found 4; 8,131 test images, found 8; 98 test classes, found 4",
        ),
        (
            "sop",
            "59,551 training images, found 8; 11,318 training classes, found 4; "
            "60,502 test images, found 8; 11,316 test classes, found 4",
        ),
        (
            "in_shop",
            "52,712 images, found 32; 25,882 training images, found 16; "
            "3,997 training classes, found 4; 14,218 queries, found 8; "
            "3,985 query classes, found 4; 12,612 gallery images, found 8",
        ),
        (
            "market",
            "12,936 training images, found 30; 751 training classes, found 5; "
            "3,368 queries, found 11; 750 query classes, found 4; 15,913 gallery images, found 40",
        ),
        (
            "lfw",
            "13,233 images, found 36; 5,749 classes, found 12; 9,525 training images, found 24; "
            "4,038 training classes, found 8; 3,708 test images, found 12; "
            "1,711 test classes, found 4",
        ),
        (
            "omniglot",
            "19,280 training images, found 36; 964 training classes, found 12; "
            "13,180 test images, found 12; 659 test classes, found 4",
        ),
    ],
)
def test_a_full_copy_has_the_official_numbers(made: Callable[[str], Path], name: str, message: str) -> None:
    root = made(name)
    with pytest.raises(UserError) as error:
        module(root, name, official=True).setup("fit")
    end = "; +datamodule.official=false accepts it, but its figures are not comparable"
    assert str(error.value) == f"{READERS[name].name} in {root}: expected {message}{end}"


BROKEN: list[tuple[str, str, str, str]] = [
    ("cub", "image_class_labels.txt", "1 1 1\n", r"image_class_labels.txt: expected 2 words in line 1, got 3"),
    (
        "cub",
        "image_class_labels.txt",
        "1 1\n",
        r"images.txt, image_class_labels.txt and classes.txt differ, first at '10'",
    ),
    ("cub", "images.txt", "", r"images.txt: expected lines of 2 words, got none"),
    (
        "cub",
        "bounding_boxes.txt",
        "1 0.0 0.0 4.0 4.0\n",
        r"bounding_boxes.txt: expected a box for each image, got none for 2",
    ),
    ("sop", "Ebay_train.txt", "header\n1 one 1 a.JPG\n", r"Ebay_train.txt: expected whole numbers, got 'one'"),
    (
        "in_shop",
        "Eval/list_eval_partition.txt",
        "1\na b c\na.jpg id_1 val\n",
        r"expected one of train, query, gallery in the last column, got 'val'",
    ),
    ("market", "query/person.jpg", "", r"query/person.jpg: expected a name such as 0002_c1s1_000451_03.jpg"),
    (
        "lfw",
        "peopleDevTrain.txt",
        "8\nA Person 3\n",
        r"peopleDevTrain.txt: expected a name and a number in line 2, got 'A Person 3'",
    ),
    ("lfw", "peopleDevTrain.txt", "8\n", r"peopleDevTrain.txt: expected names and numbers of images, got none"),
    ("lfw", "peopleDevTrain.txt", "1\nI_Person\t3\n", r"I_Person is in peopleDevTrain.txt and in peopleDevTest.txt"),
    ("cars", "cars_annos.mat", "no MATLAB", r"cannot read .*cars_annos.mat \("),
]


@pytest.mark.parametrize(("name", "file", "content", "message"), BROKEN)
def test_a_broken_list_is_named(made: Callable[[str], Path], name: str, file: str, content: str, message: str) -> None:
    root = made(name)
    (root / file).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        (CUB(crop=True) if name == "cub" else READERS[name])(root)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "file"), [("sop", "Ebay_train.txt"), ("lfw", "peopleDevTrain.txt")])
def test_a_list_that_is_no_text(made: Callable[[str], Path], name: str, file: str) -> None:
    root = made(name)
    (root / file).write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=rf"cannot read .*{file} \('utf-8'"):
        READERS[name](root)


def test_mistakes_in_matlab_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published_trees.cars(tmp_path)
    annotations = published_trees.cars_annotations([("car_ims/000001.jpg", 9)], "relative_im_path")
    names = np.array(["one", "two"], dtype=object)[None]
    for content, message in (
        ({"annotations": annotations, "class_names": names}, r"expected classes 1 to 2, got 9 to 9"),
        ({"annotations": annotations}, r"cars_annos.mat: no variable class_names in it"),
        (
            {"annotations": published_trees.cars_annotations([("a", 1)], "fname"), "class_names": names},
            r"annotations without relative_im_path; they have fname, bbox_x1",
        ),
    ):
        savemat(tmp_path / "cars_annos.mat", content)
        with pytest.raises(UserError, match=message):
            Cars()(tmp_path)
    published_trees.cars_devkit(tmp_path / "kit")
    (tmp_path / "kit/cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(UserError, match=r"no file .*/kit/cars_test_annos_withlabels.mat"):
        Cars()(tmp_path / "kit")
    real = builtins.__import__

    def without_scipy(name: str, *rest: Any) -> Any:
        """Pretend that SciPy is missing."""
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(UserError, match=r"its lists need SciPy: pip install 'lightning-triplets\[cars\]'"):
        Cars()(tmp_path)
