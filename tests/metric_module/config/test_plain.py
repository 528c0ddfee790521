"""A configuration is resolved once; nothing in it makes a node from text, or is resolved a second time."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from metric_module import UserError
from metric_module.config.plain import LIMIT, check_size, no_nodes_from_text, plain
from metric_module.tasks.build import build

Compose = Callable[..., DictConfig]

RUN = "{_target_: torch.utils.collect_env.run, command: touch ran}"
MAKE = f"${{oc.create:{RUN}}}"
# How a text hides a node that would be called; the first argument of a resolver is a text of its own.
HIDDEN = {
    "made": MAKE,
    "decoded": f"${{oc.decode:'{RUN}'}}",
    "made by a name that is resolved": f"${{oc.${{oc.env:NOPE,create}}:{RUN}}}",
    "escaped": f"\\{MAKE}",
    "escaped twice": f"\\\\\\{MAKE}",
    "the default of a variable": f"${{oc.env:NOPE,'\\{MAKE}'}}",
    "the default of a variable, with a resolved name": (f"${{oc.env:NOPE,'\\${{oc.${{oc.env:NOPE,create}}:{RUN}}}'}}"),
    "the value of a variable": "${oc.env:EVIL}",
    "a variable that building sets": f"${{oc.env:PL_GLOBAL_SEED,'\\{MAKE}'}}",
    "the default of a selection": f"${{oc.select:nowhere,'\\{MAKE}'}}",
    "a reference": "${task.text}",
    "a selection": "${oc.select:task.text}",
    "the values of a node": "${oc.dict.values:task.named}",
    "a node": "${task.texts}",
    "part of a text": f"a \\{MAKE} b",
}
TOLD = r"expected a plain value|Unsupported interpolation type oc\.(create|decode)|to string"
PLACES = (
    *("encoder", "encoder.embedding_dim", "encoder.more", "datamodule.root", "criterion.distance", "miner.x.y"),
    *("optimizer.lr", "scheduler", "trainer.profiler", "trainer.strategy", "trainer.plugins", "trainer.max_time"),
    *("logger.csv.path", "callbacks.best.filename", "callbacks.evil", "evaluation.evil", "task.more", "monitor"),
    *("module.lr_scale", "output_dir"),
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVIL", MAKE)
    monkeypatch.delenv("NOPE", raising=False)
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.mark.parametrize("name", HIDDEN)
def test_no_place_can_hold_a_hidden_node(name: str, small: Compose) -> None:
    composed = small()
    with no_nodes_from_text():
        for place in PLACES:
            cfg = copy.deepcopy(composed)
            OmegaConf.set_struct(cfg, False)
            cfg.task.text, cfg.task.texts, cfg.task.named = f"\\{MAKE}", [f"\\{MAKE}"], {"a": f"\\{MAKE}"}
            OmegaConf.update(cfg, place, HIDDEN[name], merge=False, force_add=True)
            with pytest.raises(UserError, match=TOLD):
                build(cfg)
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["made", "made by a name that is resolved", "escaped", "a reference"])
def test_the_control_hydra_would_call_it(name: str) -> None:
    cfg = OmegaConf.create({"task": {"text": f"\\{MAKE}"}, "x": {"_target_": "builtins.dict", "more": HIDDEN[name]}})
    instantiate(cfg.x, _convert_="all")
    assert Path("ran").exists() or name == "escaped", "an escape alone ends after one resolution more"


def test_a_value_that_changes_is_resolved_once(small: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = small()
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    cfg.encoder.width = "${oc.env:PL_GLOBAL_SEED,9}"
    made = plain(cfg)
    monkeypatch.setenv("PL_GLOBAL_SEED", "8")
    assert made.encoder.width == "7"
    assert plain(made) is made


def test_plain_values_have_the_types_of_the_schema(small: Compose) -> None:
    cfg = small("margin=0.3")
    made = plain(cfg)
    assert "${" not in OmegaConf.to_yaml(made)
    assert OmegaConf.to_container(made) == OmegaConf.to_container(cfg, resolve=True)
    with pytest.raises(UserError, match=r"^margin: Value 'wide' of type 'str' could not be converted to Float$"):
        plain(OmegaConf.create({"margin": "wide"}))
    with pytest.raises(UserError, match=r"unknown key 'margni': did you mean 'margin'"):
        plain(OmegaConf.create({"margni": 0.3}))
    with pytest.raises(UserError, match=r"^encoder: .*Interpolation key 'nowhere' not found"):
        plain(OmegaConf.create({"encoder": "${nowhere}"}))
    with pytest.raises(UserError, match=r"^task.a: expected a plain value, got '\$\{margin\}'"):
        plain(OmegaConf.create({"task": {"a": r"\${margin}"}}))


def test_the_resolvers_come_back() -> None:
    for _ in range(2):
        with no_nodes_from_text(), no_nodes_from_text():
            assert not OmegaConf.has_resolver("oc.create") and not OmegaConf.has_resolver("oc.decode")
        assert OmegaConf.create({"x": "${oc.decode:'[1]'}"}).x == [1]


def test_a_small_file_that_grows_is_refused_before_it_grows(tmp_path: Path) -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    merged = ["a0: &a0 {" + ", ".join(f"k{n}: 0" for n in range(9)) + "}"]
    merged += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)]
    files = {"aliases": "\n".join(rows), "merged": "\n".join(merged), "inside": "a: &a [*a]", "deep": "[" * 5000}
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
        with no_nodes_from_text(), pytest.raises(UserError, match=rf"{name}.yaml: expected at most 100,000 values"):
            OmegaConf.load(tmp_path / f"{name}.yaml")
    (tmp_path / "few.yaml").write_text("a: &a {b: 1}\nc: *a\nd: {<<: *a, e: [2]}\n")
    usual = OmegaConf.load(tmp_path / "few.yaml")
    (tmp_path / "number.yaml").write_text("3")
    with no_nodes_from_text():
        assert OmegaConf.load(tmp_path / "few.yaml") == usual
        with pytest.raises(UserError, match=r"number.yaml: expected keys and values, got 3"):
            OmegaConf.load(tmp_path / "number.yaml")


def test_references_that_grow_are_refused() -> None:
    lists = {"a0": ["x"] * 9} | {f"a{n}": [f"${{task.a{n - 1}}}"] * 9 for n in range(1, 9)}
    with pytest.raises(
        UserError, match=r"^configuration: expected at most [\d,]+ (values|characters of interpolated text)$"
    ):
        plain(OmegaConf.create({"task": lists}))
    texts = {"a0": "x" * 1000} | {f"a{n}": f"${{task.a{n - 1}}}" * 9 for n in range(1, 9)}
    with pytest.raises(UserError, match=r"expected at most 1,000,000 characters of interpolated text"):
        plain(OmegaConf.create({"task": texts}))
    with pytest.raises(UserError, match=r"expected no value that contains or refers to itself|Recursive"):
        plain(OmegaConf.create({"task": {"a": "${task.b}", "b": "${task.a}"}}))


def test_an_object_that_contains_itself() -> None:
    circle: dict[str, Any] = {"x": 1}
    circle["x"] = circle
    with pytest.raises(UserError, match=r"^here: expected at most 100,000 values"):
        check_size("here", circle)
    check_size("here", {"a": [torch.ones(3), "text", None, {"b": {1, 2}}]})


def test_deep_nesting() -> None:
    def nested(levels: int) -> Any:
        return [nested(levels - 1)] if levels else 1

    check_size("here", nested(49))
    with pytest.raises(UserError, match=r"^here: expected at most 100,000 values, .*, and 50 levels$"):
        check_size("here", nested(51))


def test_real_files_are_far_below_the_limit() -> None:
    from metric_module.config import conf_folder

    for path in conf_folder().rglob("*.yaml"):
        assert len(str(yaml.safe_load(path.read_text()))) < LIMIT / 20
    assert os.environ["EVIL"] == MAKE
