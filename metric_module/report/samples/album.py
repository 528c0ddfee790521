"""What samples look like: a small picture or a text of each, stored once in the page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from PIL import Image, features

from metric_module.errors import UserError

SIDE = 64
MOST_TEXT = 280
AT_ONCE = 256

Show = Callable[[Sequence[int]], Sequence[Image.Image | str]]
Name = Callable[[Sequence[int]], Sequence[str]]


class Seen(NamedTuple):
    """A sample as the page shows it.

    Attributes:
        name: Its class, in words.
        text: Its text; None if there is a picture.
        picture: A data URI; None if there is a text.
    """

    name: str
    text: str | None
    picture: str | None


class Album:
    """The samples of a page.

    Args:
        seen: By id.

    Example:
        >>> Album({3: Seen("cat", "a <tabby>", None)}).tag(3)
        '<span class="shot text" title="cat, sample 3">a &lt;tabby&gt;</span>'
    """

    def __init__(self, seen: Mapping[int, Seen]) -> None:
        self.seen = seen

    def name(self, id: int) -> str:
        """The class of a sample, as plain text."""
        return self.seen[id].name

    def tag(self, id: int) -> str:
        """The element that shows a sample; a picture comes from :meth:`data` when it is scrolled to."""
        sample = self.seen[id]
        about = escape(f"{sample.name}, sample {id}")
        if sample.picture is not None:
            return f'<img class="shot" data-id="{id}" alt="{about}" title="{about}">'
        return f'<span class="shot text" title="{about}">{escape(sample.text or "")}</span>'

    def data(self) -> str:
        """The element that holds pictures and texts by id, for the page's script."""
        every = {
            id: {"name": f"{sample.name}, sample {id}", "picture": sample.picture, "text": sample.text}
            for id, sample in self.seen.items()
        }
        text = json.dumps(every, separators=(",", ":")).replace("<", "\\u003c")
        return f'<script type="application/json" id="album">{text}</script>'


def album(ids: Iterable[int], labels: Mapping[int, int], show: Show | None, name: Name | None) -> Album:
    """Collect what the page shows.

    Args:
        ids: Of the samples.
        labels: Class of those whose class is known, by id.
        show: The data module's; None: a text says id and class.
        name: The data module's; None: the number of the class.

    Raises:
        UserError: If the data module's ``show`` gives something else than a picture or a text of each sample.
    """
    seen: dict[int, Seen] = {}
    every = sorted(set(ids))
    for start in range(0, len(every), AT_ONCE):
        part = every[start : start + AT_ONCE]
        names = _names(part, labels) if name is None else [str(word) for word in name(part)]
        looks = [f"sample {id}, {word}" for id, word in zip(part, names, strict=True)] if show is None else show(part)
        if len(looks) != len(part):
            raise UserError(f"datamodule.show: expected {len(part)} pictures or texts, got {len(looks)}")
        seen |= {id: _seen(word, look) for id, word, look in zip(part, names, looks, strict=True)}
    return Album(seen)


def data_uri(picture: Image.Image, side: int = SIDE) -> str:
    """A picture no larger than ``side`` pixels, as WebP, or PNG where Pillow has none."""
    small = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
    small.thumbnail((side, side))
    kind = "webp" if features.check("webp") else "png"
    file = io.BytesIO()
    small.save(file, kind, quality=72, method=4)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _names(ids: Sequence[int], labels: Mapping[int, int]) -> list[str]:
    return [f"class {labels[id]}" if id in labels else "class unknown" for id in ids]


def _seen(name: str, look: Image.Image | str) -> Seen:
    if isinstance(look, Image.Image):
        return Seen(name, None, data_uri(look))
    if not isinstance(look, str):
        raise UserError(f"datamodule.show: expected a PIL image or a str for each sample, got {type(look).__name__}")
    return Seen(name, look if len(look) <= MOST_TEXT else f"{look[:MOST_TEXT]}…", None)
