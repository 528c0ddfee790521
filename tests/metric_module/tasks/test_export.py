"""The task export: from a trained run to the files of each format, complete or not at all."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from metric_module import Embedder, UserError
from metric_module.tasks import export, train
from tests.helpers.command_line import command_in
from tests.helpers.trained_runs import CASES, CONV, THRESHOLD, towers, write_run

Compose = Callable[..., DictConfig]


def test_a_trained_run(small: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(small("trainer.max_epochs=1", "report=false", "evaluation=[retrieval,verification]"))
    run = tmp_path / "run"
    capsys.readouterr()
    cfg = small("task=export", f"ckpt_path='{run}'", folder="e")
    assert export(cfg) == {"export/width": 4.0}
    assert capsys.readouterr().out == f"Tiny of {run} written to {tmp_path / 'e/model'}\n"
    assert {path.name for path in (tmp_path / "e").iterdir()} == {"config.yaml", "model"}
    ours, again = Embedder.load(run, "cpu"), Embedder.load(tmp_path / "e/model", "cpu")
    inputs = torch.randn(6, 6)
    assert torch.equal(ours.embed(inputs), again.embed(inputs)) and ours.embed(inputs).std() > 0.1
    assert ours.threshold == again.threshold is not None
    assert ours.figures == again.figures and again.figures["test"]["recall_at_1"] > 0
    assert "came from Clouds." in (tmp_path / "e/model/README.md").read_text()
    export(small("task=export", f"ckpt_path='{run / 'checkpoints/last.ckpt'}'", folder="f"))
    export(small("task=export", f"ckpt_path='{tmp_path / 'e/model'}'", folder="g"))
    assert torch.equal(Embedder.load(tmp_path / "g/model", "cpu").embed(inputs), ours.embed(inputs))


def test_one_tower_from_the_command_line(
    tmp_path: Path, tiny_text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", towers(tiny_text), None)
    command = command_in(tmp_path, monkeypatch)
    words = ("task=export", "ckpt_path=run", "task.format=sentence_transformers")
    assert command(*words, "task.tower=text", "hydra.run.dir=out") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.yaml", "model", ".hydra", "run.log"}
    assert (tmp_path / "out/model/modules.json").is_file()
    cfg: Any = OmegaConf.load(tmp_path / "out/config.yaml")
    assert cfg.task.tower == "text" and cfg.ckpt_path == "run" and cfg.encoder.model == tiny_text
    capsys.readouterr()
    for more, message in (
        ((), "tower: expected one of image, text, got None; give tower=<name>"),
        (("task.tower=image",), "task.format=sentence_transformers: expected a TextEncoder, got ConvNet"),
        (
            ("task.format=pickle",),
            "task.format: expected one of onnx, hugging_face, sentence_transformers, got 'pickle'",
        ),
        (
            ("ckpt_path=nowhere",),
            "ckpt_path: expected the folder of a run, a checkpoint or an exported folder, got nowher",
        ),
    ):
        assert command(*words, *more, "hydra.run.dir=other") == 2
        assert capsys.readouterr().err.startswith(f"error: {message}")
        assert not (tmp_path / "other").exists()


def test_mistakes_leave_nothing(small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", CONV, CASES["conv_net"].preprocessing)
    with pytest.raises(UserError, match=r"^task.format: expected one of onnx, hugging_face, .*, got 'pickle'"):
        export(small("task=export", f"ckpt_path='{run}'", "task.format=pickle", folder="e"))
    with pytest.raises(
        UserError, match=r"^ckpt_path: expected the folder of a run, .*, got None; give ckpt_path=<run>"
    ):
        export(small("task=export", folder="e"))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metric_module.export.hugging_face._write_card", full)  # the last file
    with pytest.raises(OSError, match="No space left on device"):
        export(small("task=export", f"ckpt_path='{run}'", folder="e"))
    assert not list(tmp_path.glob("e/*"))


def test_upload(
    small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", CONV, CASES["conv_net"].preprocessing)
    task = import_module("metric_module.tasks.export")
    monkeypatch.setattr(task, "push_to_hub", lambda path, name: f"https://hub/{name}/{path.name}")
    export(small("task=export", f"ckpt_path='{run}'", "task.push=me/model", folder="e"))
    assert capsys.readouterr().out.endswith("\nuploaded to https://hub/me/model/model\n")


@pytest.mark.integration
def test_onnx(small: Compose, tmp_path: Path) -> None:
    import onnxruntime

    run = write_run(tmp_path / "run", CONV, CASES["conv_net"].preprocessing)
    export(small("task=export", "task.format=onnx", f"ckpt_path='{run}'", folder="e"))
    assert {path.name for path in (tmp_path / "e").iterdir()} == {"config.yaml", "encoder.onnx"}
    session = onnxruntime.InferenceSession(tmp_path / "e/encoder.onnx")
    assert session.get_modelmeta().custom_metadata_map["threshold"] == str(THRESHOLD)
    inputs = CASES["conv_net"].inputs
    found = torch.from_numpy(session.run(None, {"inputs": inputs.numpy()})[0])
    torch.testing.assert_close(found, Embedder.load(run, "cpu").embed(inputs), rtol=1e-5, atol=1e-6)
