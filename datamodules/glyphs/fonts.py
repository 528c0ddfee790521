"""Letters rendered from the fonts in a folder. Needs fontTools.

Legend: S = side of an image in pixels.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from datamodules.checks import check_folder
from metric_module.errors import UserError

Pixels = npt.NDArray[np.uint8]
SUFFIXES = (".otf", ".ttf")
LETTERS = ("Lu", "Ll", "Lo")
ITALIC = 1
REGULAR = 400
PLACEHOLDER = 4
"""An image shared by more letters than this is a font's placeholder for missing letters."""


class Face(NamedTuple):
    """Face that represents a font family: the one nearest to regular and upright.

    Attributes:
        family: Name of the family.
        path: Font file.
        letters: Its letters in the requested scripts.
    """

    family: str
    path: str
    letters: frozenset[str]


def list_faces(folder: Path, scripts: Sequence[str]) -> list[Face]:
    """List one face of each font family, sorted by family; files that are not fonts are skipped.

    A letter is a character of one of the scripts, in the Unicode categories Lu, Ll or Lo, that does not decompose: no
    letters with accents, no ligatures.

    Args:
        folder: Folder of ``.ttf`` and ``.otf`` files, at any depth.
        scripts: ISO 15924 codes, ``Latn``.

    Raises:
        UserError: The folder does not exist, a script is unknown, or fontTools is missing.
    """
    unicode, fonts = _font_tools()
    check_folder(folder, "datamodule.fonts")
    unknown = sorted({script for script in scripts if unicode.script_name(script, default=None) is None})
    if unknown:
        raise UserError(f"datamodule: unknown scripts {', '.join(unknown)}: expected ISO 15924 codes, such as Latn")
    best: dict[str, tuple[tuple[int, int, int, str], Face]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        found = _read_face(fonts, path, frozenset(scripts))
        if found is not None and (found[1].family not in best or found[0] < best[found[1].family][0]):
            best[found[1].family] = found
    return [best[family][1] for family in sorted(best)]


def _font_tools() -> tuple[Any, Any]:
    try:
        from fontTools import ttLib, unicodedata
    except ImportError:
        raise UserError("datamodule: glyphs need fontTools: pip install 'lightning-triplets[fonts]'") from None
    return unicodedata, ttLib


@cache
def script_of(char: str) -> str:
    """Return the script of a letter, ISO 15924; empty for other characters and those that decompose."""
    if unicodedata.category(char) not in LETTERS or unicodedata.decomposition(char):
        return ""
    return str(_font_tools()[0].script(char))


def _read_face(fonts: Any, path: Path, scripts: frozenset[str]) -> tuple[tuple[int, int, int, str], Face] | None:
    """Read a face, and how far it is from regular and upright."""
    try:
        with path.open("rb") as file, fonts.TTFont(file, lazy=True) as font:
            letters = frozenset(char for char in map(chr, font.getBestCmap() or ()) if script_of(char) in scripts)
            names, style = font["name"], font["OS/2"]
            family = names.getDebugName(16) or names.getDebugName(1) or path.stem
            distance = (style.fsSelection & ITALIC, abs(style.usWeightClass - REGULAR), abs(style.usWidthClass - 5))
    except Exception:  # fontTools raises many kinds for files that are not fonts
        return None
    return ((*distance, str(path)), Face(family, str(path), letters)) if letters else None


def render(path: str, letters: Sequence[str], size: int) -> dict[str, Pixels]:
    """Render letters of a font, black on white and centred.

    All have the same type size, three quarters of the image, so that ``c`` is smaller than ``C``; a letter that would
    not fit is set smaller. Letters without ink are removed, and so is the placeholder that a font draws for letters
    that it does not have: one image for many.

    Args:
        path: Font file.
        letters: Letters to render.
        size: S.

    Returns:
        Image of each letter, uint8 ``(S, S)``.
    """
    whole, images = _font(path, 0.75 * size), {}
    for char in letters:
        font, box = whole, whole.getbbox(char)
        largest = max(box[2] - box[0], box[3] - box[1])
        if largest > size - 2:
            font = _font(path, 0.75 * size * (size - 2) / largest)
            box = font.getbbox(char)
        left, top, right, bottom = box
        image = Image.new("L", (size, size), 255)
        corner = ((size - (right - left)) // 2 - left, (size - (bottom - top)) // 2 - top)
        ImageDraw.Draw(image).text(corner, char, fill=0, font=font)
        pixels = np.array(image)  # (S, S)
        if pixels.min() < 128:
            images[char] = pixels
    times = Counter(pixels.tobytes() for pixels in images.values())
    return {char: pixels for char, pixels in images.items() if times[pixels.tobytes()] <= PLACEHOLDER}


def _font(path: str, points: float) -> ImageFont.FreeTypeFont:
    """Load a font with basic layout, which is the same on every machine."""
    return ImageFont.truetype(path, points, layout_engine=ImageFont.Layout.BASIC)


def find_lookalikes(fonts: Sequence[Mapping[str, Pixels]], order: Sequence[str]) -> set[str]:
    """Find letters that look exactly like an earlier one in at least half of the fonts that have both.

    Latin, Greek and Cyrillic share most capitals, and two letters that nobody can distinguish must not be two classes.

    Args:
        fonts: Images of the letters in each font.
        order: The letters; the first of two equal ones is kept.
    """
    place = {char: number for number, char in enumerate(order)}
    alike: Counter[tuple[str, str]] = Counter()
    for images in fonts:
        same: dict[bytes, list[str]] = defaultdict(list)
        for char in sorted(images, key=place.__getitem__):
            same[images[char].tobytes()].append(char)
        alike.update((group[0], other) for group in same.values() for other in group[1:])
    both = {pair: sum(pair[0] in images and pair[1] in images for images in fonts) for pair in alike}
    return {second for (first, second), count in alike.items() if 2 * count >= both[first, second]}
