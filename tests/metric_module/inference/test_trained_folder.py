"""Exported folders from a stranger: each mistake or attack is one line, and nothing in a folder is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from metric_module import Embedder, UserError
from metric_module.export.hugging_face import write_folder
from tests.helpers.trained_runs import CASES, write_run

Change = Callable[[dict[str, Any], Path], Any]


@pytest.fixture
def folder(tmp_path: Path, tiny_text: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An exported text encoder, in a current folder of its own."""
    encoder, preprocessing, _ = CASES["text"]
    run = write_run(tmp_path / "run", encoder, preprocessing, tiny_text=tiny_text)
    write_folder(Embedder.load(run, "cpu"), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model"


def out_of_the_folder(config: dict[str, Any], folder: Path) -> None:
    config["config"]["encoder"]["model"] = "folder:../run"


def an_absolute_path(config: dict[str, Any], folder: Path) -> None:
    config["config"]["encoder"]["model"] = "folder:/etc"


def a_link_out_of_the_folder(config: dict[str, Any], folder: Path) -> None:
    (folder / "transformer").rename(folder.parent / "elsewhere")
    (folder / "transformer").symlink_to(folder.parent / "elsewhere")


def no_such_folder(config: dict[str, Any], folder: Path) -> None:
    (folder / "transformer").rename(folder.parent / "elsewhere")


def a_command(config: dict[str, Any], folder: Path) -> None:
    config["config"]["encoder"] = {"_target_": "os.system", "command": "touch ran"}


def a_command_inside(config: dict[str, Any], folder: Path) -> None:
    config["config"]["encoder"]["frozen"] = [{"_target_": "os.system", "command": "touch ran"}]


def a_command_as_distance(config: dict[str, Any], folder: Path) -> None:
    config["config"]["distance"] = {"_target_": "subprocess.getoutput", "cmd": "touch ran"}


def an_interpolation(config: dict[str, Any], folder: Path) -> None:
    config["config"]["encoder"]["model"] = "${oc.env:HOME}"


def many_values(config: dict[str, Any], folder: Path) -> None:
    config["config"]["encoder"]["frozen"] = ["layer"] * 200_000


def a_long_text(config: dict[str, Any], folder: Path) -> None:
    config["padding"] = "x" * 11_000_000


def deep_nesting(config: dict[str, Any], folder: Path) -> str:
    config["config"]["encoder"]["model"] = "HERE"
    return json.dumps(config).replace('"HERE"', 900 * '{"a": ' + "1" + 900 * "}")


def slight_nesting(config: dict[str, Any], folder: Path) -> str:
    """As deep as the check of the size permits."""
    config["config"]["encoder"]["model"] = "HERE"
    return json.dumps(config).replace('"HERE"', 46 * '{"a": ' + "1" + 46 * "}")


def deeper_nesting(config: dict[str, Any], folder: Path) -> str:
    return 100_000 * "["


def a_huge_number(config: dict[str, Any], folder: Path) -> str:
    return json.dumps(config).replace("0.75", "1" + 400 * "0")


def no_figures(config: dict[str, Any], folder: Path) -> None:
    config["figures"] = {"val": [0.5]}


def another_type(config: dict[str, Any], folder: Path) -> str:
    return "[1]"


def no_json(config: dict[str, Any], folder: Path) -> str:
    return "{"


def no_text(config: dict[str, Any], folder: Path) -> bytes:
    return b"\xff\xfe\x00"


def another_encoder(config: dict[str, Any], folder: Path) -> None:
    tensors = {"encoder.head.linear.weight": torch.ones(2, 3), "encoder.head.linear.bias": torch.ones(2)}
    save_file(tensors, folder / "model.safetensors")


def one_tensor_more(config: dict[str, Any], folder: Path) -> None:
    tensors = {**load_file(folder / "model.safetensors"), "encoder.evil": torch.ones(2)}
    save_file(tensors, folder / "model.safetensors")


def a_pickle(config: dict[str, Any], folder: Path) -> None:
    torch.save({"encoder.evil": torch.ones(2)}, folder / "model.safetensors")


def a_threshold_of_another_type(config: dict[str, Any], folder: Path) -> None:
    config["threshold"] = "0.5"


def another_preprocessing(config: dict[str, Any], folder: Path) -> None:
    config["preprocessing"] = {"version": 1, "kind": "os.system"}


def no_arguments(config: dict[str, Any], folder: Path) -> None:
    del config["config"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (out_of_the_folder, r"config.json: expected paths inside the folder, got 'folder:../run'$"),
        (an_absolute_path, r"config.json: expected paths inside the folder, got 'folder:/etc'$"),
        (a_link_out_of_the_folder, r"config.json: expected paths inside the folder, got 'folder:transformer'$"),
        (no_such_folder, r"^encoder.model: no such folder: .*/transformer$"),
        (a_command, r"^encoder._target_: 'os.system' comes from a file, and is no part of this project"),
        (a_command_inside, r"^encoder.frozen.0._target_: 'os.system' comes from a file, and is no part"),
        (a_command_as_distance, r"^distance._target_: 'subprocess.getoutput' comes from a file"),
        (an_interpolation, r"model: encoder.model: expected a plain value, got '\${oc.env:HOME}'$"),
        (many_values, r"config.json: expected at most 100,000 values"),
        (a_long_text, r"config.json: expected a JSON object \(JSONDecodeError\)$"),
        (deep_nesting, r"config.json: expected at most 100,000 values, .*, and 50 levels$"),
        (slight_nesting, r"^encoder.model: TextEncoder expected str, got {'a': {'a': "),
        (deeper_nesting, r"config.json: expected a JSON object \(RecursionError\)$"),
        (a_huge_number, r"figures: expected numbers by split and name, got {'val': {'recall_at_1': 1000"),
        (no_figures, r"model: figures: expected numbers by split and name, got {'val': \[0.5\]}$"),
        (another_type, r"config.json: expected a JSON object, got a list$"),
        (no_json, r"config.json: expected a JSON object \(JSONDecodeError\)$"),
        (no_text, r"config.json: expected a JSON object \(UnicodeDecodeError\)$"),
        (another_encoder, r"model does not fit TextEncoder, first at .*: expected shape .*, got no such tensor$"),
        (one_tensor_more, r"model does not fit TextEncoder, first at evil: expected no such tensor, got shape \[2\]$"),
        (a_pickle, r"model.safetensors is not a safetensors file"),
        (a_threshold_of_another_type, r"model: threshold: expected a number or null, got '0.5'$"),
        (another_preprocessing, r"^preprocessing: expected a kind of image, text, .*, got 'os.system'$"),
        (no_arguments, r"model: encoder: expected a group with a _target_, got None$"),
    ],
)
def test_a_hostile_folder_is_one_line(folder: Path, change: Change, message: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    text = change(config, folder) or json.dumps(config)
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as caught:
        Embedder.load(folder, "cpu")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 2000
    assert not (folder.parent / "ran").exists()
