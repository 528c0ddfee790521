"""The page of a server in a real browser; run with ``pytest -m browser``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metric_module.inference import EmbeddingIndex
from metric_module.serving.app import Server
from tests.helpers.serving import encoded, gallery_of, image_embedder, picture, picture_folder, running, text_embedder

pytestmark = pytest.mark.browser

SIZES = [(width, scheme) for width in (360, 1440) for scheme in ("light", "dark")]

DROP = """([name, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="module")
def images(folder: Path) -> Iterator[str]:
    embedder = image_embedder()
    with running(Server(embedder, *gallery_of(embedder, folder)).application(["127.0.0.1"])) as address:
        yield address


class Opened:
    """The page in a window, and the problems that the browser reported."""

    def __init__(self, browser: Any, address: str, size: tuple[int, str] = (1440, "light")) -> None:
        self.context = browser.new_context(viewport={"width": size[0], "height": 900}, color_scheme=size[1])
        self.problems: list[str] = []
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.problems.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("request", lambda request: self._own(request.url, address))
        self.page.goto(address)

    def _own(self, url: str, address: str) -> None:
        if not url.startswith((f"{address}/", "blob:")):
            self.problems.append(f"request: {url}")

    def found(self) -> list[list[str]]:
        """The lines of each neighbour."""
        self.page.wait_for_selector("#neighbours li")
        return [text.split("\n") for text in self.page.locator("#neighbours li").all_inner_texts()]

    def close(self, *expected: str) -> None:
        self.context.close()
        assert [one for one in self.problems if not any(part in one for part in expected)] == []


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}-{size[1]}")
def test_an_image_is_searched(browser: Any, images: str, folder: Path, size: tuple[int, str]) -> None:
    window = Opened(browser, images, size)
    page = window.page
    page.get_by_text("8 items in the gallery; threshold 0.5000").wait_for()
    page.get_by_label("Choose an image").set_input_files(folder / "ben" / "2.png")
    lines = window.found()
    assert len(lines) == 8 and lines[0][:2] == ["ben", str(folder / "ben" / "2.png")]
    assert lines[0][2].startswith("distance ") and lines[0][3] == "✓ within the threshold"
    within = [line[-1] for line in lines].count("✓ within the threshold")
    assert page.locator("#found").inner_text() == f"8 nearest items; {within} within the threshold 0.5000"
    for image in page.locator("img").all():
        image.scroll_into_view_if_needed()
        assert image.evaluate("(one) => one.decode().then(() => one.naturalWidth)") > 0
    assert page.locator("#neighbours img").count() == 8 and page.locator("#query").is_visible()
    assert page.locator("#injected").count() == 0 and page.get_by_text("<b id=injected>.png").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    window.close()


def test_an_image_is_dropped_and_replaced(browser: Any, images: str) -> None:
    window = Opened(browser, images)
    page = window.page
    page.get_by_text("8 items in the gallery").wait_for()
    page.evaluate(DROP, ["a.png", list(encoded(picture(0)))])
    assert window.found()[0][0] == "anna"
    page.evaluate(DROP, ["b.png", list(encoded(picture(4)))])
    page.locator("#neighbours li:first-child").get_by_text("ben", exact=True).wait_for()
    page.evaluate(DROP, ["c.png", list(b"no image")])
    page.get_by_role("alert").get_by_text("item 0: cannot be read (UnidentifiedImageError)").wait_for()
    assert page.locator("#neighbours li").count() == 0
    window.close("400 (Bad Request)")


def test_a_text_is_searched(browser: Any) -> None:
    model = text_embedder()
    words = ["anna", "annas", "<script>alert(1)</script>"]
    with running(Server(model, EmbeddingIndex.build(model, words, ["a", "a", None])).application()) as address:
        window = Opened(browser, address)
        window.page.get_by_label("Text").fill("annas")
        window.page.keyboard.press("Enter")
        lines = window.found()
        assert lines[0][:2] == ["a", "annas"] and {line[1] if line[0] == "a" else line[0] for line in lines} == {*words}
        assert window.page.locator("#neighbours img").count() == 0 and not window.page.locator("#file").is_visible()
        window.close()


def test_without_a_gallery_the_page_says_so(browser: Any) -> None:
    with running(Server(image_embedder()).application()) as address:
        window = Opened(browser, address)
        window.page.get_by_text("There is no gallery: start with gallery=<folder of images").wait_for()
        assert not window.page.locator("#file").is_visible()
        window.close()
