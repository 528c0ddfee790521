"""Every command of the program in the pages composes, and those under ``<!-- run -->`` run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep

from metric_module.config import conf_folder
from metric_module.config.hydra_options import check_words
from metric_module.config.schema import register
from tests.helpers.pages import DOCS, page

ROOT = DOCS.parent
PAGES = [*ROOT.glob("*.md"), *(path for path in DOCS.rglob("*.md") if DOCS / "reference" not in path.parents)]
PROGRAM = r"(?:python run\.py|lightning-triplets)"
LINE = re.compile(rf"^(?:[^`|\n]* )?{PROGRAM}(?: +([^`\n]*))?$", re.MULTILINE)
INLINE = re.compile(rf"`{PROGRAM}( [^`]+)`")
RUN = re.compile(r"<!-- run -->\n+```bash\n(.*?)```", re.DOTALL)
BEFORE_HYDRA = ("resume=", "resume_sweep=")
PLUGINS = ("hydra/launcher=", "hydra.launcher.", "hydra/sweeper=", "hydra.sweeper.")
LIMITS = "trainer.max_steps=2 trainer.limit_val_batches=1 trainer.accelerator=cpu datamodule.image_size=16 report=false"


def commands(text: str) -> Iterator[str]:
    """The words after the program's name, of each command in the blocks and the inline code of a page."""
    text = re.sub(r"\\\n\s*", "", text)
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```|((?:^ {4}\S.*\n)+)", text, re.DOTALL | re.MULTILINE)
    for block in ("".join(parts) for parts in blocks):
        yield from LINE.findall(block)
    yield from INLINE.findall(text)


def first_values(words: list[str]) -> list[str]:
    """The overrides of the first job of a sweep."""
    made = []
    for word, override in zip(words, OverridesParser.create().parse_overrides(words), strict=True):
        if override.is_sweep_override():
            value = override.value()
            first = value.start if isinstance(value, IntervalSweep) else next(override.sweep_string_iterator())
            word = f"{override.get_key_element()}={first}"
        made.append(word)
    return made


def overrides(command: str) -> tuple[str, ...]:
    """What a command gives to Hydra: without flags, options of plugins, and what the program reads itself."""
    words = shlex.split(re.sub(r"<[^<>]*>", "x", command), comments=True)
    if "--config-dir" in words:
        del words[words.index("--config-dir") + 1]
    left_out = ("-", *BEFORE_HYDRA, *PLUGINS)
    words = [word for word in words if word != "..." and not word.startswith(left_out) and word != "job"]
    return tuple(first_values(words))


def by_choices() -> dict[tuple[str, ...], dict[str, str]]:
    """The commands of all pages by their choices of options; for each, the values that they set, with their pages.

    Commands with the same choices are composed together: composition takes time, and a value is right or wrong whatever
    other values are.
    """
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for path in PAGES:
        for command in commands(path.read_text(encoding="utf-8")):
            words = overrides(command)
            choices = tuple(sorted({word for word in words if word.partition("=")[0].lstrip("+") in GROUPS}))
            values = {word: str(path.relative_to(ROOT)) for word in words if word not in choices}
            found.setdefault(choices, {}).update(values)
    return found


GROUPS = {path.name for path in conf_folder().iterdir() if path.is_dir()}
FOUND = by_choices()
BLOCKS = [(path, block) for path in PAGES for block in RUN.findall(path.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def composer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Hydra with the groups of the project and those that the pages add; yields the word that adds them."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("extending.md", "text.md"):
        for file, content in page(name)[1].items():
            if file.startswith("my_conf/"):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_text(content)
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield f"hydra.searchpath=[file://{folder}/my_conf]"


@pytest.mark.parametrize("choices", FOUND, ids=" ".join)
def test_it_composes(choices: tuple[str, ...], composer: str) -> None:
    words = [*choices, *FOUND[choices]]
    check_words(words)
    assert compose("config", [composer, *words]).margin is not None, FOUND[choices]


def test_a_mistake_is_found(composer: str) -> None:
    assert [overrides(one) for one in commands("x\n\n    python run.py miner=nothing\n")] == [("miner=nothing",)]
    with pytest.raises(Exception, match="Could not find 'miner/nothing'"):
        compose("config", [composer, "miner=nothing"])
    with pytest.raises(Exception, match=r"Could not override 'encoder\.nothing'"):
        compose("config", [composer, "encoder.nothing=1"])


def test_what_is_found() -> None:
    text = "`lightning-triplets a=1`\n```bash\npython run.py -m m=1,2 \\\n    'n=[1,2]' s=interval(0.5,1)  # c\n```\n"
    assert [overrides(one) for one in commands(text)] == [("m=1", "n=[1,2]", "s=0.5"), ("a=1",)]
    assert len(FOUND) > 30 and sum(map(len, FOUND.values())) > 80


@pytest.mark.integration
@pytest.mark.parametrize(("path", "block"), BLOCKS, ids=[f"{path.stem}-{n}" for n, (path, _) in enumerate(BLOCKS)])
def test_it_runs(path: Path, block: str, tmp_path: Path) -> None:
    """Each block in an empty folder, as it stands, but for two steps."""
    (tmp_path / "run.py").symlink_to(ROOT / "run.py")
    limited = re.sub(rf"^({PROGRAM}(?!.* task=).*?)((?:  +#.*)?)$", rf"\1 {LIMITS}\2", block, flags=re.MULTILINE)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    command = ["bash", "-euo", "pipefail", "-c", limited]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
