"""Each Korean page has the headings, code, images, links and figures of its English page."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.docs.test_links import LINK, broken_links, prose

ROOT = Path(__file__).parents[2]
KOREAN = [page for page in (ROOT / "README.ko.md", *sorted((ROOT / "docs" / "ko").glob("*.md"))) if page.is_file()]
WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
NAMED = {word: str(place) for place, word in enumerate(re.findall(r"\w+", WORDS))}
NAMED |= {"half": "2 0.5", "third": "3", "first": "1", "second": "2", "both": "2", "quarters": "4", "thirtieth": "30"}
NAMED |= {"thirty": "30", "forty": "40", "hundred": "100", "once": "1", "twice": "2", "another": "1", "a": "1"}
NUMBER = re.compile(r"(?<![\w.])\.?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def english_of(page: Path) -> Path:
    """The page that a Korean page translates."""
    return ROOT / "README.md" if page.parent == ROOT else ROOT / "docs" / page.name


def headings(page: Path) -> list[int]:
    """The level of each heading."""
    return [len(marks) for marks in re.findall(r"^(#+) ", prose(page), re.MULTILINE)]


def blocks(page: Path) -> list[str]:
    """The blocks of code, fenced or indented."""
    text = page.read_text(encoding="utf-8")
    indented = re.findall(r"(?:^ {4}\S.*\n)+", prose(page), re.MULTILINE)
    return [*re.findall(r"^```.*?^```", text, re.DOTALL | re.MULTILINE), *indented]


def targets(page: Path) -> Counter[str]:
    """The files and addresses that a page links to or shows; a Korean page counts as its English one."""
    found: Counter[str] = Counter()
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            found[link] += 1
            continue
        target = (page.parent / link.partition("#")[0]).resolve() if not link.startswith("#") else page
        found[str(english_of(target) if target in KOREAN else target)] += 1
    del found[str(english_of(page) if page in KOREAN else page)]  # links from one language to the other
    return found


def text_of(page: Path) -> str:
    """The prose of a page without the targets of links."""
    return LINK.sub("]", prose(page))


def figures(text: str) -> Counter[str]:
    """The numbers of a text, written in one way: .5 and 0.50 are 0.5, and 1,055 is 1055."""
    return Counter(f"{float(number.replace(',', '')):g}" for number in NUMBER.findall(text))


def differences(english: str, korean: str) -> list[str]:
    """The figures that are missing or added; a Korean numeral may stand for an English word."""
    expected, found = figures(english), figures(korean)
    words = {number for word in re.findall(r"[a-z]+", english.lower()) for number in NAMED.get(word, "").split()}
    added = [number for number in (found - expected).elements() if number not in words]
    return [f"missing {number}" for number in (expected - found).elements()] + [f"added {number}" for number in added]


@pytest.mark.parametrize("page", KOREAN, ids=lambda page: page.name)
def test_it_has_the_content_of_the_english_page(page: Path) -> None:
    english = english_of(page)
    assert headings(page) == headings(english)
    assert blocks(page) == blocks(english)
    assert targets(page) == targets(english)
    assert differences(text_of(english), text_of(page)) == []


@pytest.mark.parametrize("page", KOREAN, ids=lambda page: page.name)
def test_its_links(page: Path) -> None:
    assert broken_links(page, prose(page)) == []


@pytest.mark.parametrize("page", KOREAN, ids=lambda page: page.name)
def test_emphasis_ends_before_a_particle(page: Path) -> None:
    # Markdown does not close **`code`** where a letter follows, as a Korean particle does.
    assert re.findall(r"\S*[^\w\s*]\*{1,2}(?=[가-힣])", prose(page)) == []


@pytest.mark.parametrize("page", KOREAN, ids=lambda page: page.name)
def test_it_is_korean(page: Path) -> None:
    text = prose(page)
    assert len(re.findall(r"[가-힣]", text)) > len(re.findall(r"[a-z]", text)) / 2


@pytest.mark.parametrize(
    ("korean", "found"),
    [
        ("1055개의 클래스에서 3분 동안 0.50", []),
        ("1,055개의 클래스에서 삼 분 동안 .5", []),
        ("1,056개의 클래스에서 3분 동안 0.5", ["missing 1055", "added 1056"]),
        ("1,055개의 클래스에서 4분 동안 0.5", ["added 4"]),
    ],
)
def test_a_figure_that_differs_is_found(korean: str, found: list[str]) -> None:
    assert differences("1,055 classes, three minutes, 0.5", korean) == found
