"""Words that people type and Hydra does not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from metric_module.config.words import readable
from metric_module.errors import UserError


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("logger=null", "~logger"),
        ("logger=false", "~logger"),
        ("scheduler=None", "~scheduler"),
        ("callbacks=null", "~callbacks"),
        ("callbacks.progress_bar=null", "callbacks.progress_bar=null"),
        ("report=false", "report=false"),
        ("ckpt_path=null", "ckpt_path=null"),
        ("experiment=null", "experiment=null"),
        ("datamodule.root=~/pictures", "datamodule.root='/home/ann/pictures'"),
        ("+datamodule.root='~/my pictures'", "+datamodule.root='/home/ann/my pictures'"),
        ("hydra.run.dir=~", "hydra.run.dir='/home/ann'"),
        ("~logger", "~logger"),
        ("margin=0.1", "margin=0.1"),
    ],
)
def test_words(monkeypatch: pytest.MonkeyPatch, word: str, read: str) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert readable([word]) == [read]


def test_a_group_that_a_run_needs_is_not_switched_off() -> None:
    with pytest.raises(
        UserError, match=r"trainer: a run needs one of ddp, ddp_cpu, default, fsdp, got null; scheduler, "
    ):
        readable(["trainer=null"])


def test_the_home_folder_of_another_user_stays_as_it_is(tmp_path: Path) -> None:
    assert readable(["datamodule.root=~ann/pictures"]) == ["datamodule.root=~ann/pictures"]
