"""The Python blocks of docs/ten_questions.md print what the page says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tests.helpers.pages import page, written

TEXT, FILES, COMMANDS = page("ten_questions.md")
OUTPUTS = dict(re.findall(r"```python\n# (\S+)\n(?:(?!```).)*```\n\n```text\n(.*?)```", TEXT, re.DOTALL))
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def test_every_block_is_a_file_with_its_output() -> None:
    assert len(FILES) == TEXT.count("```python")
    assert FILES.keys() - OUTPUTS.keys() == {"synthetic.py"}
    assert len(OUTPUTS) == TEXT.count("```text")


def test_there_are_ten_questions_with_what_the_program_reports() -> None:
    sections = re.split(r"^## \d+\. ", TEXT, flags=re.MULTILINE)[1:]
    assert len(sections) == 10
    assert all("**What the program reports" in section for section in sections)
    assert all("```python" in section for section in sections)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of anchors without a positive, which one block provokes
@pytest.mark.integration
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_block_prints_what_the_page_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with written(FILES, tmp_path, monkeypatch):
        runpy.run_path(name)
    printed = capsys.readouterr().out
    assert NUMBER.split(printed) == NUMBER.split(OUTPUTS[name])
    found, expected = ([float(number) for number in NUMBER.findall(text)] for text in (printed, OUTPUTS[name]))
    assert found == pytest.approx(expected, rel=0.02, abs=0.02)
