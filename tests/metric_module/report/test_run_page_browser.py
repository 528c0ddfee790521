"""The report of a small run in a real browser; run with ``pytest -m browser``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metric_module.sweeps.ledger import read_jobs, read_plan
from metric_module.sweeps.page import sweep_page
from tests.helpers.sweep_folders import grid, leave

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[3]
RUN = ["encoder=mlp", "encoder.hidden=[32]", "trainer.max_epochs=1", "trainer.limit_train_batches=4", "logger=csv"]
RUN += ["trainer.accelerator=cpu", "trainer.log_every_n_steps=1", "hydra.run.dir=run"]
SIZES = [(width, scheme) for width in (360, 1440) for scheme in ("light", "dark")]
SECTIONS = ["Figures", "Training", "Distances", "Queries", "Confused classes", "Mined triplets", "Map"]
SECTIONS += ["Same or different", "Set-up"]

# Elements that extend beyond the right edge of the screen, except inside elements that scroll.
TOO_WIDE = """() => [...document.querySelectorAll("main *")]
  .filter((one) => !one.closest(".scroll *, pre *, svg, .hidden, #tip, details:not([open]) *"))
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
  .map((one) => `${one.tagName}.${one.className}#${one.id}`)"""

# The contrast between an element's text and its background, after WCAG 2.
CONTRAST = """(one) => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  let behind = one;
  while (behind.parentElement && (numbers(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) {
    behind = behind.parentElement;
  }
  const light = (text) => numbers(text).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const style = getComputedStyle(one);
  const ink = one instanceof SVGElement ? style.fill : style.color;
  const [a, b] = [light(ink), light(getComputedStyle(behind).backgroundColor)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "run.py"), *RUN]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "warning: " not in done.stderr, done.stderr
    return folder / "run" / "report.html"


class Opened:
    """The report in a window, and the problems that the browser reported."""

    def __init__(self, browser: Any, path: Path, width: int, scheme: str) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.problems: list[str] = []
        self.context.route("**/*", self._only_the_file)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.problems.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.goto(path.as_uri())
        self.page.wait_for_function(
            "[...document.querySelectorAll('.figure')].every((one) => one.querySelector('.main-svg'))"
        )

    def _only_the_file(self, route: Any) -> None:
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            self.problems.append(f"request: {route.request.url}")
            route.abort()

    def cards(self) -> list[tuple[str, str]]:
        """Return kind and class of every visible query."""
        script = (
            "(all) => all.filter((one) => one.checkVisibility()).map((one) => [one.dataset.right, one.dataset.name])"
        )
        return [(kind, name) for kind, name in self.page.eval_on_selector_all("#queries > li", script)]


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}-{size[1]}")
def opened(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[Opened]:
    window = Opened(browser, report, *request.param)
    yield window
    window.context.close()
    assert window.problems == []


@pytest.fixture
def wide(browser: Any, report: Path) -> Iterator[Opened]:
    window = Opened(browser, report, 1440, "light")
    yield window
    window.context.close()
    assert window.problems == []


def test_every_section_is_visible_and_none_is_too_wide(opened: Opened) -> None:
    page = opened.page
    assert page.eval_on_selector_all("section h2", "(all) => all.map((one) => one.textContent)") == SECTIONS
    for title in SECTIONS:
        assert page.get_by_role("heading", name=title, exact=True).is_visible()
    page.locator("summary").click()
    assert "margin: 0.4" in page.locator("pre").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert page.evaluate(TOO_WIDE) == []
    drawn = page.eval_on_selector_all(
        ".figure", "(all) => all.map((one) => [one.id, one.querySelectorAll('.trace').length])"
    )
    names = ["loss", "census", "validation", "separation", "margins", "map", "roc"]
    assert [name for name, _ in drawn] == names and all(traces for _, traces in drawn), drawn


def test_text_is_readable(opened: Opened) -> None:
    page = opened.page
    places = ["h1", "nav a", "p", "td", "th button", ".muted", ".card .muted", ".near .yes span", ".near .no span"]
    places += [".filters button[aria-pressed=true]", ".filters button[aria-pressed=false]", ".kind", "figcaption"]
    places += ["#loss .xtick text", "#separation .legendtext", "#roc .ytitle", "#map .legendtext"]
    for place in places:
        assert page.locator(place).first.evaluate(CONTRAST) >= 4.5, place


def test_pictures_are_loaded_when_they_are_scrolled_to(opened: Opened) -> None:
    page = opened.page
    assert page.locator("#part-mined-triplets img").first.get_attribute("src") is None
    for part in ("#queries", "#part-confused-classes", "#part-mined-triplets"):
        image = page.locator(f"{part} img").first
        image.scroll_into_view_if_needed()
        page.wait_for_function("(one) => one.naturalWidth === 64", arg=image.element_handle())
        assert image.get_attribute("alt")
    drawn = page.eval_on_selector_all("img", "(all) => all.filter((one) => !one.alt).length")
    assert drawn == 0


def test_the_filters_change_the_visible_queries(opened: Opened) -> None:
    page = opened.page
    assert len(opened.cards()) == 24
    page.get_by_role("button", name="Right at rank 1").click()
    right = opened.cards()
    assert right and {kind for kind, _ in right} == {"right"}
    page.get_by_role("button", name="Wrong at rank 1").click()
    wrong = opened.cards()
    assert {kind for kind, _ in wrong} == {"wrong"}
    assert page.locator("#shown-count").inner_text().startswith("24 of ")
    word = wrong[3][1][:5]
    page.get_by_label("Class").fill(f" {word.upper()} ")
    assert opened.cards() and all(word in name and kind == "wrong" for kind, name in opened.cards())
    page.get_by_label("Class").fill("no such class")
    assert opened.cards() == [] and page.locator("#shown-count").inner_text() == "0 of 0 queries"


def test_the_order_and_more(wide: Opened) -> None:
    page = wide.page
    worst = wide.cards()
    page.get_by_label("Order").select_option("best")
    best = wide.cards()
    assert "right" in {kind for kind, _ in best} and not set(best) & set(worst)
    page.get_by_label("Order").select_option("worst")
    assert wide.cards() == worst
    page.get_by_role("button", name="Show more").click()
    assert len(wide.cards()) == 48 and wide.cards()[:24] == worst


def test_everything_works_with_the_keyboard(wide: Opened) -> None:
    page = wide.page
    page.locator(".filters button").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert {kind for kind, _ in wide.cards()} == {"wrong"}
    assert page.get_by_role("button", name="Wrong at rank 1").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type("button")
    assert all("button" in name for _, name in wide.cards())


def test_a_point_of_the_map_shows_its_sample(opened: Opened) -> None:
    page = opened.page
    page.locator("#map").scroll_into_view_if_needed()
    page.wait_for_timeout(300)  # scrolling hides it
    point = page.locator("#map .trace .point").first
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = page.locator("#tip")
    tip.wait_for(state="visible")
    assert ", sample " in tip.inner_text()
    assert tip.locator("img").evaluate("(one) => one.naturalWidth") == 64
    place = tip.bounding_box()
    assert place["x"] >= 0 and place["x"] + place["width"] <= page.viewport_size["width"]


def test_a_threshold_is_read_off_the_curve(wide: Opened) -> None:
    page = wide.page
    page.locator("#roc").scroll_into_view_if_needed()
    box = page.locator("#roc .nsewdrag").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5)
    page.mouse.move(box["x"] + box["width"] * 0.61, box["y"] + box["height"] * 0.5)
    page.locator("#roc .hovertext").first.wait_for()
    assert "threshold" in page.locator("#roc .hovertext").first.text_content()


def test_a_printed_page_is_light_and_has_its_pictures(opened: Opened) -> None:
    page = opened.page
    ink = "getComputedStyle(document.body).color"
    before = page.evaluate(ink)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate(ink) == "rgb(29, 34, 40)"
    empty = "(all) => all.filter((one) => one.checkVisibility() && !one.src).length"
    assert page.eval_on_selector_all("img[data-id]", empty) == 0
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(ink) == before


def test_the_label_of_the_threshold_is_whole(opened: Opened) -> None:
    label, plot = opened.page.locator("#roc .textpoint text").bounding_box(), opened.page.locator("#roc").bounding_box()
    assert plot["x"] <= label["x"] and label["x"] + label["width"] <= plot["x"] + plot["width"]
    assert label["y"] >= opened.page.locator("#roc .nsewdrag").bounding_box()["y"]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}-{size[1]}")
def test_a_sweep_shows_its_intervals_and_leads_to_the_reports(browser: Any, tmp_path: Path, size: Any) -> None:
    words = grid("margin=0.05,0.1", "miner=distance_weighted,semihard", "seed=1,2")
    figures = [0.51, 0.52, 0.53, 0.55, 0.5, 0.4, 0.45, 0.44]
    leave(tmp_path, words, figures, [9, 9, 0, 0] * 2, {"before": figures, "raw": [0.6] * 8})
    (tmp_path / "0" / "report.html").write_text("<title>one</title>")
    (tmp_path / "sweep.html").write_text(sweep_page(read_jobs(tmp_path), read_plan(tmp_path), tmp_path))
    window = Opened(browser, tmp_path / "sweep.html", *size)
    hidden = "(all) => all.filter((one) => one.scrollWidth > one.clientWidth + 1).length"
    assert window.page.eval_on_selector_all(".scroll", hidden) == 0
    window.page.get_by_role("link", name="report").click()
    assert window.page.title() == "one"
    window.context.close()
    assert window.problems == []
