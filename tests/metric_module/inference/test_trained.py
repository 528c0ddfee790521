"""Reading of a trained encoder: no code in a file is run, and a damaged file is refused in one line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from metric_module import Embedder, UserError
from metric_module.inference.trained import read_trained
from metric_module.preprocessing import VectorInput
from tests.helpers.trained import EUCLIDEAN, write_checkpoint

NODE = {"_target_": "metric_module.encoders.MLP", "in_features": 3, "embedding_dim": 2, "hidden": [4]}

FIGURES = {"raw": {"map_at_r": 0.2}, "before": {"map_at_r": 0.3}, "val": {"best_step": 0, "map_at_r": 0.5, "eer": None}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt", NODE, VectorInput(3))
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(FIGURES))
    return tmp_path / "run"


def test_a_run_has_its_figures(run: Path) -> None:
    found = read_trained(run)
    assert found.figures["val"]["map_at_r"] == 0.5
    assert found.figures["val"]["eer"] != found.figures["val"]["eer"]  # NaN
    assert (found.threshold, found.preprocessing) == (0.75, VectorInput(3))
    assert (found.figures["raw"], found.figures["val"]["best_step"]) == ({"map_at_r": 0.2}, 0)
    assert read_trained(run / "checkpoints" / "best.ckpt").figures.keys() == FIGURES.keys()
    shutil.copy(run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt")
    assert read_trained(run / "checkpoints" / "last.ckpt").figures == {}


def test_without_a_best_checkpoint_the_newest_is_read(run: Path) -> None:
    (run / "checkpoints" / "best.ckpt").rename(run / "checkpoints" / "last.ckpt")
    assert read_trained(run).threshold == 0.75


def test_old_names_are_known(tmp_path: Path) -> None:
    node = {"encoders": {"a": NODE}}
    file = tmp_path / "best.ckpt"
    write_checkpoint(file, {"_target_": "metric_module.encoders.MultiEncoder", **node})
    content = torch.load(file, weights_only=True)
    content["config"]["encoder"]["_target_"] = "metric_module.encoders.multi.MultiEncoder"
    torch.save(content, file)
    assert read_trained(file).config["encoder"]["_target_"] == "metric_module.encoders.MultiEncoder"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": None}, "the checkpoint does not say how its encoder is built"),
        ({"config": {"distance": EUCLIDEAN}}, "encoder: expected a group with a _target_, got None"),
        ({"config": {"encoder": NODE}}, "distance: expected a group with a _target_, got None"),
        ({"threshold": "near"}, "threshold: expected a number or null, got 'near'"),
        ({"threshold": float("nan")}, "threshold: expected a number or null, got nan"),
        ({"preprocessing": "[]"}, "preprocessing: expected a JSON object, got a list"),
        ({"state_dict": {}}, "does not fit MLP, first at "),
        (
            {"config": {"encoder": {**NODE, "in_features": "${oc.env:HOME}"}, "distance": EUCLIDEAN}},
            "encoder.in_features: expected a plain value, got '${oc.env:HOME}'",
        ),
        (
            {"config": {"encoder": {**NODE, "wid": 3}, "distance": EUCLIDEAN}},
            "encoder.wid: MLP has no such argument",
        ),
        (
            {"config": {"encoder": {"_target_": "os.system", "command": "touch pwned"}, "distance": EUCLIDEAN}},
            "encoder._target_: 'os.system' comes from a file, and is no part of this project",
        ),
        (
            {"config": {"encoder": {**NODE, "hidden": {"_target_": "os.system"}}, "distance": EUCLIDEAN}},
            "encoder.hidden._target_: 'os.system' comes from a file",
        ),
        (
            {"config": {"encoder": EUCLIDEAN, "distance": NODE}},
            "distance: expected a Distance, got metric_module.encoders.MLP",
        ),
    ],
)
def test_damaged_checkpoints(run: Path, changes: dict[str, Any], message: str) -> None:
    file = run / "checkpoints" / "best.ckpt"
    torch.save(torch.load(file, weights_only=True) | changes, file)
    with pytest.raises(UserError, match=re.escape(message)):
        read_trained(run)


def test_an_encoder_of_ones_own_must_be_trusted(tmp_path: Path) -> None:
    node = {"_target_": "tests.helpers.my_encoders.Tiny", "embedding_dim": 4}
    write_checkpoint(tmp_path / "best.ckpt", node)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metric_module.config.trust._trusted", [])
        with pytest.raises(UserError, match=r"^encoder._target_: 'tests.helpers.my_encoders.Tiny' comes from a file"):
            Embedder.load(tmp_path / "best.ckpt")
        assert Embedder.load(tmp_path / "best.ckpt", trusted=["tests.helpers"]).embedding_dim == 4


@pytest.mark.parametrize("text", ['{"val": 3}', "[]", '{"val": {"a": "b"}}', "{"])
def test_damaged_figures(run: Path, text: str) -> None:
    (run / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=r"(figures: expected numbers by split and name|expected a JSON object)"):
        read_trained(run)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none/x: no such file; expected the folder of a run, a checkpoint or an exp"):
        read_trained(tmp_path / "none" / "x")
    expected = rf"^{tmp_path}: no checkpoint in it \(no .*/checkpoints/best.ckpt\); give the folder of a finished"
    with pytest.raises(UserError, match=expected):
        read_trained(tmp_path)
    with pytest.raises(UserError, match=r"encoder.safetensors: a file of weights does not say .*; give its folder$"):
        read_trained(tmp_path / "encoder.safetensors")
