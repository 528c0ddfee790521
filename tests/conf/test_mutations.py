"""A shipped yaml with any key broken ends in one line, or still runs, but never in a stack trace."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from metric_module.config import conf_folder
from tests.helpers.command_line import Command, command_in
from tests.helpers.mutated_runs import copy_of, trace_of, words_for, write_data
from tests.helpers.mutations import mutations

CONF = conf_folder()
YAMLS = [path.relative_to(CONF) for path in sorted(CONF.rglob("*.yaml"))]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    write_data(tmp_path)
    return command_in(tmp_path, monkeypatch)


def test_mutations_change_one_place_each() -> None:
    made = {one.name: one.text for one in mutations("# @package _global_\na: 1\nb: {c: [x]}\n")}
    assert made["a text"] == "# @package _global_\na: abc\nb:\n  c:\n  - x\n"
    assert made["b.c.0 removed"].endswith("b:\n  c: []\n")
    assert {"a null", "a removed", "a mapping", "b text", "b.unknown_key unknown", "unknown_key unknown"} <= set(made)
    assert "a number" not in made, "a number stays a number"


@pytest.mark.parametrize("path", YAMLS[::2], ids=str)
def test_one_mutation_of_every_second_yaml(path: Path, command: Command, tmp_path: Path) -> None:
    conf, made = copy_of(CONF, tmp_path), list(mutations((CONF / path).read_text()))
    one = made[zlib.crc32(str(path).encode()) % len(made)]
    trace = trace_of(command, conf, conf / path, one, words_for(path))
    assert trace is None, (one.name, trace)


@pytest.mark.slow
@pytest.mark.parametrize("path", YAMLS, ids=str)
def test_every_mutation_of_each_yaml(path: Path, command: Command, tmp_path: Path) -> None:
    conf, words = copy_of(CONF, tmp_path), words_for(path)
    found = {one.name: trace_of(command, conf, conf / path, one, words) for one in mutations((CONF / path).read_text())}
    assert not {name: trace for name, trace in found.items() if trace}
