"""Small data sets, drawn once and written in the layouts that users have: folders, tables, arrays, ``datasets``.

Legend: N = images, S = 64, their side in pixels.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from datamodules.emoji.datamodule import FOLDER, read_images, read_index
from datamodules.glyphs.datamodule import render_letters
from datamodules.glyphs.fonts import list_faces, script_of
from datamodules.idx import first_of_each, read_folder

SIDE = 64
DRAW = 0
SCRIPTS = ("Latn", "Grek", "Cyrl", "Armn", "Hebr", "Geor")
LETTERS = 10
"""Letters of each script."""
GARMENTS = 50
"""Images of each class of Fashion-MNIST."""
Pixels = npt.NDArray[np.uint8]
Classes = Mapping[str, list[Pixels]]
"""Images ``(S, S)`` or ``(S, S, 3)`` of each class."""


def emoji(count: int) -> Classes:
    """Draw classes of the shipped emoji; a larger draw contains a smaller one.

    Args:
        count: Number of classes.
    """
    names, _ = read_index(FOLDER)
    images = read_images(FOLDER, len(names), SIDE).permute(0, 2, 3, 1).numpy()  # (N, S, S, 3)
    found: dict[str, list[Pixels]] = {}
    for name, image in zip(names, images, strict=True):
        found.setdefault(name, []).append(image)
    order = np.random.default_rng(DRAW).permutation(len(found))
    return distinct({name: found[name] for name in (sorted(found)[place] for place in order)}, count)


def glyphs(fonts: str) -> Classes:
    """Draw letters of several scripts, each in at most 20 fonts.

    Args:
        fonts: Folder of the fonts.
    """
    faces = list_faces(Path(fonts), SCRIPTS)
    random = np.random.default_rng(DRAW)
    letters = render_letters([faces[place] for place in random.permutation(len(faces))], SIDE, least=6, most=20)
    drawn = random.permutation(sorted(letters)).tolist()
    found: dict[str, list[Pixels]] = {}
    for script in SCRIPTS:
        mine = {f"{script}_{ord(letter):05x}": letters[letter] for letter in drawn if script_of(letter) == script}
        found |= distinct(mine, LETTERS)
    return distinct(found, len(found))


def fashion(root: str) -> Classes:
    """Take the first images of each class of Fashion-MNIST.

    Args:
        root: Folder of the IDX files.
    """
    images, labels, _ = read_folder(Path(root))
    chosen = first_of_each(labels.argsort(stable=True), labels, GARMENTS)
    found: dict[str, list[Pixels]] = {}
    for place in chosen.tolist():
        image = Image.fromarray(images[place].numpy()).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        found.setdefault(str(int(labels[place])), []).append(np.asarray(image))
    return found


def distinct(classes: Classes, count: int) -> Classes:
    """Keep the first classes that share no image with an earlier one, without repeated images."""
    seen: set[bytes] = set()
    found: dict[str, list[Pixels]] = {}
    for name, images in classes.items():
        different = {image.tobytes(): image for image in images}
        if len(found) < count and seen.isdisjoint(different):
            found[name] = list(different.values())
            seen |= different.keys()
    return found


def builders(fonts: str, fashion_root: str) -> dict[str, Callable[[], Classes]]:
    """Map the name of each subset to the function that draws it."""
    drawn = {f"emoji{count}": partial(emoji, count) for count in (20, 50, 100)}
    return {**drawn, "glyphs": partial(glyphs, fonts), "fashion": partial(fashion, fashion_root)}


def write(folder: Path, classes: Classes) -> None:
    """Write classes for each data module of :func:`layouts`.

    Args:
        folder: Folder to write.
        classes: Images of each class.
    """
    import datasets

    part = folder.with_name(f"{folder.name}.part")  # so that an interrupted write is not taken for a whole one
    shutil.rmtree(part, ignore_errors=True)
    rows = [(f"folder/{name}/{number}.png", name) for name, found in classes.items() for number in range(len(found))]
    pictures = [Image.fromarray(image).convert("RGB") for found in classes.values() for image in found]
    for (path, _), picture in zip(rows, pictures, strict=True):
        (part / path).parent.mkdir(parents=True, exist_ok=True)
        picture.save(part / path)
    with (part / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "label"), *rows])
    inputs = np.stack([np.asarray(picture) for picture in pictures]).transpose(0, 3, 1, 2)  # (N, 3, S, S)
    labels = [name for _, name in rows]
    np.savez(part / "arrays.npz", inputs=inputs, labels=np.array(labels))
    stored = [{"bytes": (part / path).read_bytes(), "path": None} for path, _ in rows]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_dict({"image": stored, "label": labels}, features).save_to_disk(part / "saved")
    part.rename(folder)


def layouts(folder: Path) -> dict[str, list[str]]:
    """Map each data module to the overrides that read a folder of :func:`write`."""
    return {
        "image_folder": [f"datamodule.root={folder}/folder"],
        "manifest": [f"datamodule.table={folder}/table.csv", "datamodule.image=image"],
        "arrays": [f"datamodule.path={folder}/arrays.npz"],
        "hugging_face": [f"datamodule.path={folder}/saved", "datamodule.input=image"],
    }
