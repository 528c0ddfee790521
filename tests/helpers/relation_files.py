"""Small data sets of pairs, in the layouts that the data modules read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (240, 240, 240)}


def ratings(folder: Path, users: int = 30, items: int = 40, layout: str = "u.data") -> Path:
    """Ratings as MovieLens-100k publishes them, or as RecBole's atomic files; users of two tastes."""
    draw = np.random.default_rng(0)
    rows = []
    for user in range(users):
        for time, item in enumerate(draw.permutation(items)[: 12 + user % 7]):
            same = (item + user) % 2 == 0
            rows.append((100 + user, 500 + int(item), int(draw.integers(4, 6) if same else draw.integers(1, 4)), time))
    draw.shuffle(rows)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / layout
    head = [] if layout == "u.data" else ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    path.write_text("\n".join([*head, *("\t".join(map(str, row)) for row in rows)]) + "\n")
    return path


def captions(folder: Path, each: int = 10) -> Path:
    """Images of one colour, with two captions each."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["image,caption"]
    for number in range(each):
        for name, colour in COLOURS.items():
            dimmed = tuple(int(value * (1 - number / 40)) for value in colour)
            Image.new("RGB", (8, 8), dimmed).save(folder / f"{name}{number}.png")
            lines += [f'{name}{number}.png,"a {name} square, number {number}"', f"{name}{number}.png,{name} {number}"]
    path = folder / "captions.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def labelled(folder: Path, each: int = 10) -> Path:
    """Images of two halves, whose labels are the colours of both."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(1)
    lines = ["image,labels"]
    for number in range(4 * each):
        first, second = draw.permutation(list(COLOURS))[:2]
        picture = Image.new("RGB", (8, 8), COLOURS[str(first)])
        picture.paste(COLOURS[str(second)], (4, 0, 8, 8))
        picture.save(folder / f"{number}.png")
        lines.append(f"{number}.png,{first}|{second}")
    path = folder / "labels.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
