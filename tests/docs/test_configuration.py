"""docs/configuration.md lists every option that ships, and its commands compose."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.helpers.command_line import command_in
from tests.helpers.pages import DOCS, page

CONF = DOCS.parent / "conf"
TEXT, _, COMMANDS = page("configuration.md")
README = (DOCS.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = [
    line.partition("    #")[0].strip()
    for line in [*COMMANDS, *re.findall(r"^python run.py .*$", README, re.MULTILINE)]
    if "--" not in line and "resume=" not in line
]


def options(group: str) -> set[str]:
    """The options of a group that ship."""
    return {path.stem for path in (CONF / group).glob("*.yaml")}


def test_every_option_is_listed() -> None:
    table = TEXT.partition("## Groups and options")[2].partition("## Set values")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))
    rows["datamodule"] = table.partition("| data |")[2]
    assert set(rows) == {path.name for path in CONF.iterdir() if path.is_dir()} - {"hydra", "__pycache__"}
    for group, row in rows.items():
        assert options(group) <= set(re.findall(r"`(\w+)`", row)), group


@pytest.mark.parametrize("line", EXAMPLES)
def test_its_commands_compose(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python, script, *words = shlex.split(line.replace("<", "").replace(">", ""), comments=True)
    assert (python, script) == ("python", "run.py")
    words = [word.split(",")[0] if "-m" in words and "=" in word else word for word in words if word != "-m"]
    assert command_in(tmp_path, monkeypatch)(*words, "--cfg", "job") == 0
    composed = capsys.readouterr().out
    assert "margin:" in composed
    assert not any(tmp_path.iterdir())
