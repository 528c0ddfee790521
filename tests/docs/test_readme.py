"""The README's Python runs as it stands, and its commands are the ones that continuous integration uses."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch

from tests.helpers.pages import page

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_plain_python_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    blocks = [block for block in BLOCKS if "Trainer" in block]
    assert len(blocks) == 1
    lines = [line for line in blocks[0].splitlines() if line]
    assert len(lines) <= 15
    scope: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(blocks[0], scope)
    embeddings = scope["embeddings"]
    assert isinstance(embeddings, torch.Tensor)
    assert embeddings.shape == (512, 128)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(512))


def test_the_encoder_is_the_one_that_runs_in_extending() -> None:
    (block,) = [block for block in BLOCKS if "Encoder" in block]
    assert block.partition("\n")[2] == page("extending.md")[1]["my_encoders.py"].partition("\n")[2]


@pytest.mark.parametrize("name", ["run", "test"])
def test_each_command_is_one_line(name: str) -> None:
    found = re.search(rf"<!-- {name} command -->\n```bash\n(.*?)```", README, re.DOTALL)
    assert found is not None
    assert found[1].count("\n") == 1
    assert found[1].startswith("python3 -m venv .venv && ")


def test_it_is_short() -> None:
    assert len(README.split()) <= 900
