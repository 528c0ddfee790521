"""The looks of samples: a small picture or a text of each, stored once in the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypedDict

from PIL import Image, features

from metric_module.errors import UserError

SIDE = 64
MOST_TEXT = 280
AT_ONCE = 256

Show = Callable[[Sequence[int]], Sequence[Image.Image | str]]
Name = Callable[[Sequence[int]], Sequence[str]]


class Look(TypedDict):
    """The look of a sample, a dict for the script of the page.

    Attributes:
        name: Its class, in words.
        title: Class and name of the sample.
        file: The name of the sample without its folders, for a caption.
        text: Its text; None if there is a picture.
        picture: Its picture as a data URI; None if there is a text.
    """

    name: str
    title: str
    file: str
    text: str | None
    picture: str | None


def album(
    ids: Iterable[int], labels: Mapping[int, int], show: Show | None, name: Name | None, names: Name | None = None
) -> dict[int, Look]:
    """Collect the looks of samples.

    Args:
        ids: Ids of the samples.
        labels: Class by id, for the samples whose class is known.
        show: The data module's method; None shows each sample as a text with its id and class.
        name: The data module's method; None names each class by its number.
        names: The data module's method; None names each sample by its id.

    Returns:
        The looks by id.

    Raises:
        UserError: If ``show`` returns something else than a picture or a text for each sample.
    """
    found: dict[int, Look] = {}
    every = sorted(set(ids))
    for start in range(0, len(every), AT_ONCE):
        part = every[start : start + AT_ONCE]
        classes = [f"class {labels.get(id, 'unknown')}" for id in part] if name is None else [*map(str, name(part))]
        files = [f"sample {id}" for id in part] if names is None else [*map(str, names(part))]
        shown = [f"sample {id}, {word}" for id, word in zip(part, classes, strict=True)] if show is None else show(part)
        if len(shown) != len(part):
            raise UserError(f"datamodule.show: expected {len(part)} pictures or texts, got {len(shown)}")
        for id, word, file, one in zip(part, classes, files, shown, strict=True):
            text, picture = _text_or_picture(one)
            short = file.rpartition("/")[2] or file
            found[id] = Look(name=word, title=f"{word}, {file}", file=short, text=text, picture=picture)
    return found


def data_uri(picture: Image.Image, side: int = SIDE) -> str:
    """Encode a picture, shrunk to at most ``side`` pixels, as WebP, or as PNG if Pillow has no WebP."""
    small = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
    small.thumbnail((side, side))
    kind = "webp" if features.check("webp") else "png"
    file = io.BytesIO()
    small.save(file, kind, quality=72, method=4)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _text_or_picture(shown: Image.Image | str) -> tuple[str | None, str | None]:
    if isinstance(shown, Image.Image):
        return None, data_uri(shown)
    if not isinstance(shown, str):
        name = type(shown).__name__
        raise UserError(f"datamodule.show: expected a PIL image or a str for each sample, got {name}")
    return (shown if len(shown) <= MOST_TEXT else f"{shown[:MOST_TEXT]}…"), None
