"""ONNX files: embeddings by ONNX Runtime are those of the encoder, at any batch size."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metric_module import Embedder, Encoder, UserError
from metric_module.distances import Euclidean, SquaredEuclidean
from metric_module.encoders import MLP, ConvNet, LookupEncoder, PixelConvNet, SeriesConvNet, TimmEncoder
from metric_module.export.onnx import write_onnx
from metric_module.preprocessing import ImageInput, Preprocessing, SeriesInput, TextInput, VectorInput
from metric_module.version import __version__

pytestmark = pytest.mark.integration

IMAGES = ImageInput(32, mean=0.4, std=0.2)


class Ids(Encoder):
    """Means of vectors by id, of integer inputs."""

    embedding_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2, 3)

    def forward(self, words: Tensor) -> Tensor:
        found: Tensor = self.table(words).mean(dim=1)
        return found


class Longer(Encoder):
    """Embeddings of a length far from one."""

    embedding_dim = 4

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.layer = nn.Linear(5, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.factor * self.layer(inputs).tanh()  # type: ignore[no-any-return]


def embedder(encoder: Encoder, preprocessing: Preprocessing | None, threshold: float | None = 0.75) -> Embedder:
    """An embedder whose encoder has random weights and statistics."""
    generator = torch.Generator().manual_seed(1)
    for name, value in encoder.state_dict().items():
        if value.is_floating_point():
            value.add_(0.1 * torch.rand(value.shape, generator=generator) - (0 if "var" in name else 0.05))
    return Embedder(encoder, SquaredEuclidean(), preprocessing, threshold, device="cpu")


ENCODERS: dict[str, tuple[Any, Preprocessing]] = {
    "conv_net": (lambda: ConvNet(embedding_dim=8), IMAGES),
    "conv_net of grey images": (lambda: ConvNet(in_channels=1, normalize=False), ImageInput(17, 1, grey=True)),
    "mlp": (lambda: MLP(7, 4, (9,)), VectorInput(7)),
    "mlp of images": (lambda: MLP(3 * 32 * 32, 4, (9,), normalize=False), IMAGES),
    "series_conv_net": (lambda: SeriesConvNet(4, in_channels=2), SeriesInput((2, 33))),
    "resnet": (lambda: TimmEncoder("resnet18", 8), IMAGES),
    "vit": (lambda: TimmEncoder("test_vit", 8), ImageInput(160)),
    "ids": (Ids, SeriesInput((6,), "int64")),
    "long": (lambda: Longer(1e4), VectorInput(5)),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_onnx_runtime_gives_the_same_embeddings(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import onnxruntime

    build, preprocessing = ENCODERS[name]
    ours = embedder(build(), preprocessing)
    path = tmp_path / "encoder.onnx"
    write_onnx(ours, path)
    assert capfd.readouterr() == ("", "") and [*tmp_path.iterdir()] == [path]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, made.name, made.type) == ("inputs", "embeddings", "tensor(float)")
    assert given.type == ("tensor(int64)" if name == "ids" else "tensor(float)")
    assert given.shape[0] == made.shape[0] == "batch" and made.shape[1] == ours.embedding_dim
    for rows in (1, 3, 65):
        inputs = torch.randn(rows, *given.shape[1:], generator=torch.Generator().manual_seed(rows))
        inputs = (inputs > 0).long() if name == "ids" else inputs
        expected = ours.embed(inputs)
        found = torch.from_numpy(session.run(None, {"inputs": inputs.numpy()})[0])
        assert ((found - expected).norm(dim=1) / expected.norm(dim=1)).max() <= 1e-5
        assert rows < 3 or torch.pdist(expected).max() > 1e-4, "inputs differ"
    about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert about == {
        "preprocessing": json.loads(preprocessing.to_json()),
        "embedding_dim": ours.embedding_dim,
        "distance": "SquaredEuclidean",
        "threshold": 0.75,
        "version": __version__,
    }
    assert b"/metric_module/" not in path.read_bytes() and b"site-packages" not in path.read_bytes()


def test_a_file_without_a_threshold(tmp_path: Path) -> None:
    import onnxruntime

    write_onnx(embedder(MLP(7, 4, (9,)), VectorInput(7), None), tmp_path / "a.onnx")
    about = onnxruntime.InferenceSession(tmp_path / "a.onnx").get_modelmeta().custom_metadata_map
    assert about["threshold"] == "null"


@pytest.mark.parametrize(
    ("encoder", "preprocessing"), [(LookupEncoder(9), None), (PixelConvNet(), None), (MLP(3), TextInput())]
)
def test_other_inputs_are_rejected(encoder: Encoder, preprocessing: Preprocessing | None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^task.format=onnx: expected .* got (None|TextInput\(\)); give task.format=h"):
        write_onnx(embedder(encoder, preprocessing), tmp_path / "a.onnx")


class OneByOne(Encoder):
    """An encoder that depends on the number of inputs."""

    embedding_dim = 5

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([row / (1 + row.abs().sum()) for row in inputs])


class Listed(Encoder):
    """An encoder of lists of numbers, which cannot be traced."""

    embedding_dim = 5

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tensor(inputs.tolist())


@pytest.mark.parametrize("kind", [OneByOne, Listed])
def test_an_encoder_that_cannot_be_exported(kind: type[Encoder], tmp_path: Path) -> None:
    message = rf"^task.format=onnx: {kind.__name__} cannot be exported: .+"
    with pytest.raises(UserError, match=message) as caught:
        write_onnx(embedder(kind(), VectorInput(5)), tmp_path / "a.onnx")
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_a_difference_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = embedder(Longer(1e4), VectorInput(5))
    embed = ours.embed
    for error, fails in ((1e-6, False), (1e-4, True)):
        monkeypatch.setattr(ours, "embed", lambda inputs, error=error: embed(inputs) * (1 + error))
        if not fails:
            write_onnx(ours, tmp_path / "a.onnx")
            continue
        with pytest.raises(UserError, match=r"error of ONNX: expected at most 1e-05, got [5-9]\.\de-05 \(Longer\)$"):
            write_onnx(ours, tmp_path / "b.onnx")
    broken = Embedder(Longer(float("inf")), Euclidean(), VectorInput(5), device="cpu")
    with pytest.raises(UserError, match="Longer: NaN or infinity in 1 embeddings: item 0"):
        write_onnx(broken, tmp_path / "b.onnx")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"MLP cannot be exported: .*onnxruntime.*; pip install 'lightning-triplets\[o"):
        write_onnx(embedder(MLP(7, 4, (9,)), VectorInput(7)), tmp_path / "a.onnx")
