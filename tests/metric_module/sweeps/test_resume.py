"""``resume_sweep=<folder>``: which options are restored, which must be typed again, and which are rejected."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from metric_module.errors import UserError
from metric_module.sweeps.ledger import Plan, write_plan
from metric_module.sweeps.resume import with_resume_sweep

OWN = ["margin=0.1,0.2", "encoder._target_=mine.Tiny"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    leave(
        tmp_path / "it's",
        "hydra.mode=MULTIRUN",
        "hydra.sweep.dir=elsewhere",
        "hydra/launcher=joblib",
        "hydra.sweeper.max_batch_size=2",
    )
    return tmp_path / "it's"


def leave(folder: Path, *hydra_words: str, own: list[str] = OWN) -> None:
    write_plan(folder, Plan("val/map_at_r", own, list(hydra_words), [], None))


def test_the_options_of_the_sweep_are_restored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tail = [f"hydra.sweep.dir='{folder.parent}/it\\'s'", "hydra.callbacks.report.resume=true"]
    assert with_resume_sweep([f"resume_sweep={folder}"]) == ["-m", *OWN, "hydra.sweeper.max_batch_size=2", *tail]
    message = "resume_sweep: runs without hydra/launcher=joblib; to use the launcher, type it again\n"
    assert capsys.readouterr().err == message
    typed = ["trusted=[mine]", "debug=true", "--config-dir", "my_conf", "hydra/launcher=joblib"]
    ours = ["-m", "--config-dir", "my_conf", *OWN, "hydra.sweeper.max_batch_size=2"]
    expected = [*ours, "trusted=[mine]", "debug=true", "hydra/launcher=joblib", *tail]
    assert with_resume_sweep(["-m", *typed, f"resume_sweep={folder}"]) == expected
    assert capsys.readouterr().err == ""
    assert with_resume_sweep([OWN[1], f"resume_sweep={folder}"])[1:3] == OWN, "typed again, and there once"
    assert with_resume_sweep(["margin=0.1"]) == ["margin=0.1"]


def test_other_options_are_rejected(folder: Path) -> None:
    message = r"resume_sweep: a sweep continues with its own options, got 'margin=0.3'; allowed: trusted=, debug="
    with pytest.raises(UserError, match=message):
        with_resume_sweep([f"resume_sweep={folder}", "margin=0.3"])


@pytest.mark.parametrize("word", ["hydra.searchpath=[file:///x]", "hydra.job.env_set.A=b", "+hydra.callbacks.a=b"])
def test_options_of_hydra_must_be_typed_again(tmp_path: Path, word: str) -> None:
    leave(tmp_path, word)
    message = f"resume_sweep: {re.escape(repr(word))} comes from .*sweep.json; to use it, type it again"
    with pytest.raises(UserError, match=message):
        with_resume_sweep([f"resume_sweep={tmp_path}"])
    assert with_resume_sweep([f"resume_sweep={tmp_path}", word]).count(word) == 1
    leave(tmp_path, own=[word])
    with pytest.raises(UserError, match=message):
        with_resume_sweep([f"resume_sweep={tmp_path}"])


def test_command_line_options_from_the_file_are_rejected(tmp_path: Path) -> None:
    leave(tmp_path, own=["--config-dir=/x"])
    with pytest.raises(UserError, match=r"'--config-dir=/x' comes from .*sweep.json"):
        with_resume_sweep([f"resume_sweep={tmp_path}"])


@pytest.mark.parametrize(
    "text", [None, "{", "[]", '{"words": []}', '{"monitor":1,"words":3,"hydra_words":[],"options":[],"jobs":[]}']
)
def test_a_folder_that_does_not_belong_to_a_sweep(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "sweep.json").write_text(text)
    message = r"resume_sweep: expected the folder of a sweep, with sweep.json in it, got "
    with pytest.raises(UserError, match=message + re.escape(str(tmp_path))):
        with_resume_sweep([f"resume_sweep={tmp_path}"])


def test_options_with_control_characters_are_rejected(tmp_path: Path) -> None:
    word = "encoder.name=a\x1b[201~\nb"
    leave(tmp_path, own=[word])
    message = r"^resume_sweep: 'encoder.name=a\\x1b\[201~\\nb' from .*sweep.json has control characters; type it again$"
    with pytest.raises(UserError, match=message):
        with_resume_sweep([f"resume_sweep={tmp_path}"])
    assert word in with_resume_sweep([f"resume_sweep={tmp_path}", word])
