"""Small copies of published data sets, in their layouts: a few images of 8 x 8 pixels in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat


def image(path: Path, size: tuple[int, int] = (8, 8)) -> None:
    """A picture of one colour, which is a function of the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = np.random.default_rng([*path.name.encode(), *path.parent.name.encode()]).integers(0, 256, 3)
    Image.new("RGB", size, tuple(colour.tolist())).save(path)


def lines(path: Path, rows: Sequence[Sequence[object]], between: str = " ") -> None:
    """A list of words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(between.join(map(str, row)) + "\n" for row in rows))


def cub(root: Path, each: int = 3) -> None:
    """CUB-200-2011: four classes of either half."""
    names = {number: f"{number:03d}.Bird_{number}" for number in HALVES[0] + HALVES[1]}
    files = [
        (number, f"{name}/Bird_{number}_{place:04d}.jpg") for number, name in names.items() for place in range(each)
    ]
    for place, (_, file) in enumerate(files):
        image(root / "images" / file, (12, 8 + place % 3))
    lines(root / "classes.txt", [*names.items()])
    lines(root / "images.txt", [(place, file) for place, (_, file) in enumerate(files, start=1)])
    lines(root / "image_class_labels.txt", [(place, number) for place, (number, _) in enumerate(files, start=1)])
    lines(root / "bounding_boxes.txt", [(place + 1, 6.0, 2.0, 4.0, 3.0) for place in range(len(files))])


HALVES = ([1, 2, 3, 4], [101, 102, 103, 104])
"""Numbers of classes on either side of the middle of CUB and, by 2 less, of Cars196."""
CAR = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class")
CARS = [*HALVES[0], *(number - 2 for number in HALVES[1])]
CAR_NAMES = np.array([f"Car {number} Sedan" for number in range(1, 197)], dtype=object)[None]


def cars_annotations(rows: Sequence[tuple[str, int]], file: str) -> Any:
    """The struct array of the lists: a file name and a class in each, boxes from (3, 2) to (6, 5)."""
    found = np.empty((1, len(rows)), dtype=[(name, object) for name in (file, *CAR)])
    for place, (name, label) in enumerate(rows):
        found[0, place] = (name, 3.0, 2.0, 6.0, 5.0, float(label))
    return found


def cars(root: Path, each: int = 2) -> None:
    """Cars196 with one list: four classes of either half."""
    rows = [(f"car_ims/{place + 1:06d}.jpg", CARS[place // each]) for place in range(len(CARS) * each)]
    for name, _ in rows:
        image(root / name, (12, 8))
    annotations = cars_annotations(rows, "relative_im_path")
    savemat(root / "cars_annos.mat", {"annotations": annotations, "class_names": CAR_NAMES})


def cars_devkit(root: Path) -> None:
    """Cars196 with a development kit: of each class one image in either half of the lists."""
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit/cars_meta.mat", {"class_names": CAR_NAMES})
    for half, path in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows = [(f"{place:05d}.jpg", number) for place, number in enumerate(CARS, start=1)]
        for name, _ in rows:
            image(root / f"cars_{half}" / name)
        savemat(root / path, {"annotations": cars_annotations(rows, "fname")})


def sop(root: Path, classes: int = 8, each: int = 2) -> None:
    """Stanford Online Products."""
    for part, first in (("train", 1), ("test", classes // 2 + 1)):
        rows: list[tuple[object, ...]] = [("image_id", "class_id", "super_class_id", "path")]
        for label in range(first, first + classes // 2):
            for number in range(each):
                rows.append((len(rows), label, 1, f"bicycle_final/{label}_{number}.JPG"))
                image(root / str(rows[-1][-1]))
        lines(root / f"Ebay_{part}.txt", rows)


def in_shop(root: Path, classes: int = 8, each: int = 4) -> None:
    """In-shop Clothes Retrieval: every other image of a test item is a query."""
    rows: list[tuple[object, ...]] = [(classes * each,), ("image_name", "item_id", "evaluation_status")]
    for label in range(1, classes + 1):
        for number in range(each):
            name = f"img/WOMEN/Dresses/id_{label:08d}/{number:02d}_1_front.jpg"
            status = "train" if label <= classes // 2 else ("query", "gallery")[number % 2]
            rows.append((name, f"id_{label:08d}", status))
            image(root / "Img" / name)
    lines(root / "Eval/list_eval_partition.txt", rows, between="    ")


def market(root: Path) -> None:
    """Market-1501: five people to train on, four in the test, three cameras, junk and distractors."""
    for person in (2, 7, 10, 11, 12):
        for camera in (1, 2, 3):
            for frame in range(2):
                image(root / f"bounding_box_train/{person:04d}_c{camera}s1_{frame:06d}_01.jpg")
    for person in (1, 3, 4, 5):
        for camera in (1, 2, 3)[: 2 + person % 2]:
            image(root / f"query/{person:04d}_c{camera}s1_000100_00.jpg")
            for frame in range(3):
                image(root / f"bounding_box_test/{person:04d}_c{camera}s2_{frame:06d}_02.jpg")
    for number in range(7):
        image(root / f"bounding_box_test/0000_c{number % 3 + 1}s1_{number:06d}_01.jpg")
        image(root / f"bounding_box_test/-1_c{number % 3 + 1}s1_{number:06d}_01.jpg")
    (root / "bounding_box_test/Thumbs.db").write_text("of some file manager")


def lfw(root: Path, people: int = 12, each: int = 3) -> None:
    """LFW: people A to H to develop with, I to L to test; pairs of view 2 among A to F."""
    names = [f"{chr(65 + place)}_Person" for place in range(people)]
    for name in names:
        for number in range(1, each + 1):
            image(root / f"lfw/{name}/{name}_{number:04d}.jpg")
    lines(root / "peopleDevTrain.txt", [(8,), *((name, each) for name in names[:8])], "\t")
    lines(root / "peopleDevTest.txt", [(4,), *((name, each) for name in names[8:])], "\t")
    halves = [names[:6], names[6:]]
    lines(root / "people.txt", [(2,), *(row for half in halves for row in [(6,), *((n, each) for n in half)])], "\t")
    dev = [(names[8], 1, 2), (names[9], 2, 3), (names[8], 1, names[9], 1), (names[10], 1, names[11], 1)]
    lines(root / "pairsDevTest.txt", [(2,), *dev], "\t")
    folds = [[(a, 1, 2), (a, 1, b, 1)] for a, b in zip(names[:6:2], names[1:6:2], strict=True)]
    lines(root / "pairs.txt", [(3, 1), *(row for fold in folds for row in fold)], "\t")


def omniglot(root: Path, each: int = 3) -> None:
    """Omniglot: four alphabets of three letters to train on, two of two in the test."""
    for folder, alphabets, letters in (("background", "ABCD", 3), ("evaluation", "YZ", 2)):
        for alphabet in alphabets:
            for letter in range(1, letters + 1):
                for number in range(1, each + 1):
                    name = f"{ord(alphabet)}{letter:02d}_{number:02d}.png"
                    image(root / f"images_{folder}/Alphabet_{alphabet}/character{letter:02d}/{name}")


TREES: dict[str, Callable[[Path], None]] = {
    "cub": cub,
    "cars": cars,
    "sop": sop,
    "in_shop": in_shop,
    "market": market,
    "lfw": lfw,
    "omniglot": omniglot,
}
