"""Overrides and Hydra's own options are checked before Hydra acts on them."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from metric_module import UserError
from metric_module.config import conf_folder
from metric_module.config.hydra_options import check_composed, check_words
from metric_module.config.schema import register


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("config", overrides=["margin=0.3"], return_hydra_config=True)


@pytest.fixture(autouse=True)
def nothing_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metric_module.config.trust._words", [])


def changed(composed: DictConfig, place: str, value: Any) -> DictConfig:
    cfg = composed.copy()
    OmegaConf.set_readonly(cfg, False)
    OmegaConf.set_struct(cfg, False)
    OmegaConf.update(cfg, place, value, merge=False, force_add=True)
    return cfg


def test_the_shipped_options_pass(composed: DictConfig) -> None:
    check_composed(composed, ["margin=0.3"])
    for name in ("${hydra.sweep.dir}/.submitit/%j", "${hydra.job.name}"):
        check_composed(changed(composed, "hydra.launcher.name", name), ["margin=0.3"])
    for subdir in ("${hydra:job.override_dirname}", "jobs/${hydra.job.num}"):
        check_composed(changed(composed, "hydra.sweep.subdir", subdir), ["margin=0.3"])
    check_composed(changed(composed, "hydra.job_logging.root.level", "DEBUG"), ["margin=0.3"])


REFUSED = [
    ("hydra.callbacks.x", {"name": "${hydra.job.name}"}, r"hydra.callbacks.x.name: expected a plain value, got '\$"),
    ("hydra.sweeper.name", "${hydra.job.name}", r"hydra.sweeper.name: expected a plain value, got '\$"),
    ("hydra.launcher.name", "${encoder}", r"hydra.launcher.name: expected a plain value, got '\$"),
    ("hydra.launcher.name", "${hydra.sweep.dir}${task}", r"hydra.launcher.name: expected a plain value, got '\$"),
    ("hydra.launcher._target_", "${hydra.job.name}", r"hydra.launcher._target_: '\$\{hydra.job.name\}' comes from"),
    ("hydra.job.env_set.A", "1", r"hydra.job.env_set.A: a file cannot set the environment; type hydra.job.env_set.A="),
    ("hydra.mode", "MULTIRUN", r"hydra.mode: a file cannot ask for a sweep; type -m"),
    ("hydra.overrides.task", ["margin=0.3", "seed=1"], r"hydra.overrides: a file cannot set them; type overrides"),
    ("hydra.overrides.hydra", ["--experimental-rerun=evil.pt"], r"hydra.overrides: a file cannot set them"),
    ("hydra.sweep.subdir", "../../x", r"hydra.sweep.subdir: expected a folder in the sweep, .* got '../../x'"),
    ("hydra.sweep.subdir", "/x", r"hydra.sweep.subdir: expected a folder in the sweep"),
    ("hydra.sweep.subdir", "${hydra:job.name}", r"hydra.sweep.subdir: expected a folder in the sweep"),
    ("hydra.sweep.subdir", "${oc.env:HOME}", r"hydra.sweep.subdir: expected a folder in the sweep"),
    ("hydra.job_logging.handlers.file.filename", "umap.py", r"file.filename: a file cannot choose classes, files and"),
    ("hydra.job_logging.handlers.file.filename", "${hydra.job.name}", r"handlers.file.filename: a file cannot choose"),
    ("hydra.job_logging.formatters.file.format", "import os", r"formatters.file.format: a file cannot choose classes"),
    ("hydra.job_logging.handlers.file.class", "logging.handlers.SocketHandler", r"file.class: a file cannot choose"),
    ("hydra.hydra_logging.handlers.x", {"()": "os.getcwd"}, r"handlers.x.\(\): a file cannot choose classes"),
    ("hydra.hydra_logging.handlers.x", "${encoder}", r"hydra_logging.handlers.x: a file cannot choose classes"),
    ("hydra.job_logging.handlers.console.stream", "cfg://handlers", r"console.stream: a file cannot choose classes"),
    ("trusted", ["os"], r"trusted: a file cannot vouch for itself"),
]


@pytest.mark.parametrize(("place", "value", "told"), REFUSED)
def test_what_a_file_cannot_change(composed: DictConfig, place: str, value: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_composed(changed(composed, place, value), ["margin=0.3"])


def test_a_node_of_hydra_that_is_a_reference(composed: DictConfig) -> None:
    cfg: Any = OmegaConf.to_container(changed(composed, "margin", 0.3))
    cfg["hydra"]["sweep"] = "${encoder}"
    with pytest.raises(UserError, match=r"^hydra.sweep: expected a plain value, got '\$\{encoder\}'$"):
        check_composed(OmegaConf.create(cfg), ["margin=0.3"])


def test_what_was_typed_may_be_changed(composed: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = {
        "hydra.job_logging.handlers.file.filename": "mine.log",
        "hydra.job.env_set.A": "1",
        "hydra.sweep.subdir": "${hydra:runtime.choices.miner}",
    }
    words = [f"{place}={value}" for place, value in typed.items()]
    monkeypatch.setattr("metric_module.config.trust._words", words)
    for place, value in typed.items():
        check_composed(changed(composed, place, value), ["margin=0.3"])
    with pytest.raises(UserError, match=r"handlers.file.filename: a file cannot choose"):
        check_composed(changed(composed, "hydra.job_logging.handlers.file.filename", "other.log"), ["margin=0.3"])


def test_options_never_reach_a_job() -> None:
    for word in ("--experimental-rerun=evil.pt", "-m"):
        with pytest.raises(UserError, match=rf"^{word}: expected an override, key=value; options come from"):
            check_words(["margin=0.3", word])
    with pytest.raises(UserError, match=r"hydra.searchpath: a file cannot change it; type"):
        check_words(["+hydra.searchpath=[pkg://evil]"])
