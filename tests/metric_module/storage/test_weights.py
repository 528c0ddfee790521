"""Weights of an encoder as safetensors: equal bit for bit, complete or absent, and a misfit is named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from metric_module import Encoder, UserError, __version__, load_encoder, save_encoder
from metric_module.encoders import MLP, ConvNet, SeriesConvNet, TimmEncoder
from metric_module.preprocessing import ImageInput
from metric_module.storage.weights import for_training, read_usage

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def build(name: str, seed: int) -> Encoder:
    torch.manual_seed(seed)
    if name == "conv_net":
        return ConvNet(embedding_dim=8, widths=(4, 6), depths=(1, 1))
    if name == "mlp":
        return MLP(in_features=3 * 32 * 32, embedding_dim=8, hidden=(5,))
    if name == "series":
        return SeriesConvNet(embedding_dim=8, widths=(4, 6), depths=(1, 1), in_channels=3)
    return TimmEncoder("test_resnet", embedding_dim=8)


@pytest.mark.parametrize("name", ["conv_net", "mlp", "series", "timm"])
def test_out_and_in_again(tmp_path: Path, name: str) -> None:
    inputs = IMAGES.flatten(2) if name == "series" else IMAGES
    first, second = build(name, 0), build(name, 1)
    first.train()(inputs)  # statistics of BatchNorm that are not those of a fresh one
    path = tmp_path / "new" / "a.safetensors"
    save_encoder(first, path)
    assert not torch.equal(first.eval()(inputs), second.eval()(inputs))
    load_encoder(second, str(path))
    assert torch.equal(first(inputs), second(inputs))
    assert load_file(path).keys() == first.state_dict().keys()
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("whole", [True, False])
def test_names_are_those_without_compile(tmp_path: Path, whole: bool) -> None:
    """Either the encoder or one of its modules is compiled; nothing is called, so nothing is compiled really."""
    encoder, path = build("timm", 0), tmp_path / "a.safetensors"
    compiled: Any = torch.compile(encoder) if whole else encoder
    if not whole:
        encoder.backbone = torch.compile(encoder.backbone)  # type: ignore[arg-type,assignment]
    assert any("_orig_mod" in name for name in compiled.state_dict())
    save_encoder(compiled, path, ImageInput(32))
    plain = build("timm", 1)
    load_encoder(plain, path)
    assert load_file(path).keys() == plain.state_dict().keys()
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["encoder"] == "metric_module.encoders.timm.TimmEncoder"
    assert read_usage(path).preprocessing == ImageInput(32)
    other: Any = torch.compile(build("timm", 2))
    load_encoder(other, path)
    for name, value in plain.state_dict().items():
        assert torch.equal(other.state_dict()[f"_orig_mod.{name}"], value), name
    save_file({f"_orig_mod.{name}": value for name, value in load_file(path).items()}, path)  # as written before
    load_encoder(build("timm", 3), path)
    assert read_usage(path).preprocessing is None


def test_what_is_loaded_is_in_evaluation_mode(tmp_path: Path) -> None:
    encoder = build("timm", 0)
    save_encoder(encoder, tmp_path / "a.safetensors")
    load_encoder(encoder, tmp_path / "a.safetensors")
    assert not any(module.training for module in encoder.modules())
    for_training(encoder)
    assert all(module.training for module in encoder.modules())
    encoder.eval()
    for_training(encoder)
    assert not encoder.training, "the user's own eval() stays"


def test_metadata_and_rights(tmp_path: Path) -> None:
    save_encoder(build("mlp", 0), tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        about = file.metadata()
    expected = {
        "encoder": "metric_module.encoders.mlp.MLP",
        "embedding_dim": "8",
        "version": __version__,
        "format": "pt",
    }
    assert about == expected
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


class Tied(Encoder):
    """An encoder with a tied weight, a view, a transposed weight, and bfloat16."""

    embedding_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.two.weight = self.one.weight
        whole = torch.randn(4, 3)
        self.register_buffer("row", whole[1])
        self.register_buffer("other", whole[2:])
        self.turned = nn.Parameter(torch.randn(2, 3).T)
        self.brief = nn.Parameter(torch.randn(2).bfloat16())


def test_tied_and_turned_weights(tmp_path: Path) -> None:
    first, second = Tied(), Tied()
    save_encoder(first, tmp_path / "a.safetensors")
    load_encoder(second, tmp_path / "a.safetensors")
    assert second.two.weight is second.one.weight
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def test_what_does_not_fit_is_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_encoder(build("mlp", 0), path)

    def refused(encoder: Encoder, message: str) -> None:
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        with pytest.raises(UserError, match=rf"module\.encoder_weights: .*a\.safetensors {message}"):
            load_encoder(encoder, path)
        assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())

    refused(
        MLP(3072, 8, hidden=(6,)),
        r"does not fit MLP, first at body.0.weight: expected shape \[6, 3072\], got shape \[5, 3072\]; the file is of "
        r"'metric_module.encoders.mlp.MLP'",
    )
    refused(MLP(3072, 9, hidden=(5,)), r".* first at head.linear.weight: expected shape \[9, 5\], got shape \[8, 5\]")
    refused(MLP(3072, 8, hidden=()), r".* first at head.linear.weight: expected shape \[8, 3072\], got shape \[8, 5\]")
    refused(MLP(3072, 8, hidden=(5, 5)), r".* first at body.3.weight: expected shape \[5, 5\], got no such tensor")
    state = load_file(path)
    save_file({**state, "more": torch.zeros(2)}, path)
    refused(build("mlp", 1), r"does not fit MLP, first at more: expected no such tensor, got shape \[2\]$")


def test_no_such_file(tmp_path: Path) -> None:
    encoder = build("mlp", 0)
    with pytest.raises(UserError, match=r"module\.encoder_weights: no such file: .*nowhere"):
        load_encoder(encoder, tmp_path / "nowhere")
    save_encoder(encoder, tmp_path / "cut")
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:-4])
    torch.save(encoder.state_dict(), tmp_path / "torch")
    (tmp_path / "empty").touch()
    for name in ("cut", "torch", "empty"):
        with pytest.raises(UserError, match=rf"module\.encoder_weights: .*{name} is not a safetensors file \("):
            load_encoder(encoder, tmp_path / name)


class Worded(Tied):
    def get_extra_state(self) -> str:
        return "a word"


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(UserError, match=r"a.safetensors: cannot write .*a.safetensors \(expected tensors, _extra"):
        save_encoder(Worded(), path)
    strange = Tied()
    strange.register_buffer("strange", torch.zeros(2, dtype=torch.complex128))
    with pytest.raises(UserError, match=r"a.safetensors: cannot write .*a.safetensors \(.*complex128"):
        save_encoder(strange, path)
    assert not list(tmp_path.iterdir())
    save_encoder(Tied(), path)
    before = path.read_bytes()

    def torn(tensors: dict[str, Tensor], part: Path, about: Any) -> None:
        part.write_bytes(before[:9])
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("metric_module.storage.weights.save_file", torn)
    with pytest.raises(UserError, match=r"cannot write .*a.safetensors \(.*No space left on device\)"):
        save_encoder(Tied(), path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_timm_takes_safetensors(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(3)
    source: Any = timm.create_model("test_resnet")
    path = tmp_path / "weights.safetensors"
    save_file(source.state_dict(), path)
    encoder = TimmEncoder("test_resnet", weights=str(path))
    for name, value in encoder.backbone.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name
    save_encoder(encoder, path)
    whole = r"does not fit, first at conv1\.0\.weight: expected \[16, 3, 3, 3\], got no such tensor; weights of a whole"
    with pytest.raises(UserError, match=rf"encoder\.weights: .*weights\.safetensors {whole} encoder go into module"):
        TimmEncoder("test_resnet", weights=str(path))
    state = dict(source.state_dict())
    del state["bn1.bias"]
    save_file(state, path)
    lacking = r"does not fit, first at bn1\.bias: expected \[\d+\], got no such tensor; weights of"
    with pytest.raises(UserError, match=rf"encoder\.weights: .*weights\.safetensors {lacking}"):
        TimmEncoder("test_resnet", weights=str(path))
    path.write_bytes(json.dumps({"a": 1}).encode())
    with pytest.raises(UserError, match=r"encoder\.weights: .*weights\.safetensors is not a safetensors file"):
        TimmEncoder("test_resnet", weights=str(path))


def test_distance_and_threshold(tmp_path: Path) -> None:
    encoder, path = build("mlp", 0), tmp_path / "a.safetensors"
    save_encoder(encoder, path)
    assert read_usage(path) == (None, None, None)
    save_encoder(encoder, path, distance="Cosine", threshold=0.1 + 0.2)
    assert read_usage(path) == (None, "Cosine", 0.1 + 0.2)


@pytest.mark.parametrize("text", ["near", "nan", "inf", ""])
def test_a_threshold_is_a_number(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.ones(1)}, path, {"threshold": text})
    with pytest.raises(
        UserError, match=rf"encoder_weights: .*a.safetensors: expected a number as threshold, got '{text}'"
    ):
        read_usage(path)
