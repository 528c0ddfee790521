"""``resume_sweep=<folder>``: which words come back, on whose word, and what is refused."""

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


def test_the_words_of_the_sweep_in_its_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tail = [f"hydra.sweep.dir='{folder.parent}/it\\'s'", "hydra.callbacks.report.resume=true"]
    assert with_resume_sweep([f"resume_sweep={folder}"]) == ["-m", *OWN, "hydra.sweeper.max_batch_size=2", *tail]
    told = "resume_sweep: runs without hydra/launcher=joblib; to launch that way, type it again\n"
    assert capsys.readouterr().err == told
    typed = ["trusted=[mine]", "debug=true", "--config-dir", "my_conf", "hydra/launcher=joblib"]
    ours = ["-m", "--config-dir", "my_conf", *OWN, "hydra.sweeper.max_batch_size=2"]
    expected = [*ours, "trusted=[mine]", "debug=true", "hydra/launcher=joblib", *tail]
    assert with_resume_sweep(["-m", *typed, f"resume_sweep={folder}"]) == expected
    assert capsys.readouterr().err == ""
    assert with_resume_sweep([OWN[1], f"resume_sweep={folder}"])[1:3] == OWN, "typed again, and there once"
    assert with_resume_sweep(["margin=0.1"]) == ["margin=0.1"]


def test_a_sweep_goes_on_with_its_own_options(folder: Path) -> None:
    told = r"resume_sweep: a sweep goes on with its own options, got 'margin=0.3'; allowed: trusted=, debug="
    with pytest.raises(UserError, match=told):
        with_resume_sweep([f"resume_sweep={folder}", "margin=0.3"])


@pytest.mark.parametrize("word", ["hydra.searchpath=[file:///x]", "hydra.job.env_set.A=b", "+hydra.callbacks.a=b"])
def test_hydras_words_are_typed_again(tmp_path: Path, word: str) -> None:
    leave(tmp_path, word)
    told = f"resume_sweep: {re.escape(repr(word))} comes from .*sweep.json; if you want it, type it again"
    with pytest.raises(UserError, match=told):
        with_resume_sweep([f"resume_sweep={tmp_path}"])
    assert with_resume_sweep([f"resume_sweep={tmp_path}", word]).count(word) == 1
    leave(tmp_path, own=[word])
    with pytest.raises(UserError, match=told):
        with_resume_sweep([f"resume_sweep={tmp_path}"])


def test_an_option_in_a_file_is_refused(tmp_path: Path) -> None:
    leave(tmp_path, own=["--config-dir=/x"])
    with pytest.raises(UserError, match=r"'--config-dir=/x' comes from .*sweep.json"):
        with_resume_sweep([f"resume_sweep={tmp_path}"])


@pytest.mark.parametrize(
    "text", [None, "{", "[]", '{"words": []}', '{"monitor":1,"words":3,"hydra_words":[],"options":[],"jobs":[]}']
)
def test_a_folder_that_is_none_of_a_sweep(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "sweep.json").write_text(text)
    told = r"resume_sweep: expected the folder of a sweep, with sweep.json in it, got "
    with pytest.raises(UserError, match=told + re.escape(str(tmp_path))):
        with_resume_sweep([f"resume_sweep={tmp_path}"])
