"""docs/configuration.md lists every option that ships."""

from __future__ import annotations

import re

from tests.helpers.pages import DOCS, page

CONF = DOCS.parent / "conf"
TEXT = page("configuration.md")[0]


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
