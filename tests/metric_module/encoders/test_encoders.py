"""ConvNet, MLP and TimmEncoder: the contract of an encoder, and the settings and files of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from metric_module import Encoder, UserError
from metric_module.encoders import MLP, ConvNet, TimmEncoder
from metric_module.encoders.conv_net import GeneralizedMean

IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def build(name: str, normalize: bool = True) -> Encoder:
    torch.manual_seed(0)
    if name == "conv_net":
        return ConvNet(embedding_dim=16, widths=(8, 12), depths=(1, 2), normalize=normalize)
    if name == "mlp":
        return MLP(in_features=3 * 32 * 32, embedding_dim=16, hidden=(32,), normalize=normalize)
    return TimmEncoder("test_resnet", embedding_dim=16, normalize=normalize)


@pytest.mark.parametrize("name", ["conv_net", "mlp", "timm"])
def test_contract(name: str) -> None:
    encoder = build(name).train()
    embeddings = encoder(IMAGES)
    assert embeddings.shape == (6, encoder.embedding_dim)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(6))
    embeddings[:, 0].sum().backward()
    missing = [key for key, value in encoder.named_parameters() if value.grad is None]
    assert missing == []
    encoder.eval()
    torch.testing.assert_close(encoder(IMAGES)[:2], encoder(IMAGES[:2]), rtol=1e-4, atol=1e-5)
    assert encoder(torch.zeros(2, 3, 32, 32)).isfinite().all()
    free = build(name, normalize=False).eval()(IMAGES)
    assert (free.norm(dim=1) - 1).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["conv_net", "mlp", "timm"])
def test_state_dict_holds_everything(name: str) -> None:
    first = build(name)
    with torch.no_grad():
        for value in first.parameters():
            value.add_(0.01)
    second = build(name)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(IMAGES), second.eval()(IMAGES))


def test_conv_net_takes_any_image_size_and_channels() -> None:
    encoder = ConvNet(embedding_dim=4, widths=(4, 4), depths=(1, 1), in_channels=1)
    assert encoder(torch.rand(2, 1, 20, 28)).shape == (2, 4)


@pytest.mark.parametrize(("stride", "sides"), [(1, [32, 16]), (2, [16, 8]), (4, [8, 4])])
def test_conv_net_takes_the_resolution_down(stride: int, sides: list[int]) -> None:
    encoder, features, found = ConvNet(widths=(4, 4), depths=(1, 1), stem_stride=stride), IMAGES, []
    for stage in encoder.stages:
        features = stage(features)
        found.append(features.shape[-1])
    assert found == sides


def test_conv_net_describes_every_stage() -> None:
    encoder = ConvNet(embedding_dim=4, widths=(3, 5), depths=(1, 1), normalize=False).eval()
    first = encoder.stages[0](IMAGES)
    described = torch.cat([first.mean(dim=(2, 3)), encoder.pool(encoder.stages[1](first))], dim=1)
    assert described.shape == (6, 8)
    torch.testing.assert_close(encoder(IMAGES), encoder.head(described))


def test_generalized_mean_is_the_formula() -> None:
    pool = GeneralizedMean()
    maps = torch.rand(2, 3, 4, 4) + 0.1
    expected = (maps**3).mean(dim=(2, 3)) ** (1 / 3)
    torch.testing.assert_close(pool(maps), expected)


def test_an_encoder_must_define_forward() -> None:
    with pytest.raises(NotImplementedError, match="Empty must define forward"):
        type("Empty", (Encoder,), {})()(IMAGES)


@pytest.mark.parametrize("kind", ["torch", "other names"])
def test_timm_takes_a_local_file(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(1)
    source: Any = timm.create_model("test_resnet")
    state = source.state_dict()
    if kind == "other names":
        state = {f"layer{number}": value for number, value in enumerate(state.values())}
    torch.save(state, tmp_path / "weights.pth")
    encoder = TimmEncoder("test_resnet", weights=str(tmp_path / "weights.pth")).eval()
    source.eval().reset_classifier(0)
    features = source(IMAGES)
    torch.testing.assert_close(encoder.backbone(IMAGES), features)


def test_frozen_modules_never_change() -> None:
    torch.manual_seed(0)
    encoder = TimmEncoder("test_resnet", frozen=["conv1", "bn1", "layer1"]).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder.eval().train()
    for _ in range(2):
        encoder(torch.rand(4, 3, 32, 32))[:, 0].sum().backward()
        optimizer.step()
    still = ("backbone.conv1", "backbone.bn1", "backbone.layer1")
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in changed if name.startswith(still)]
    moving = {name for name in before if not name.startswith(still)}
    assert changed == moving
    with pytest.raises(
        UserError, match=r"the backbone has no module 'layer9'; at the top level it has conv1, bn1, .*layer4"
    ):
        TimmEncoder("test_resnet", frozen=["layer9"])


class KeptBytes:
    """Number of bytes that a forward pass keeps for its gradient."""

    def __init__(self, encoder: Encoder, inputs: Tensor) -> None:
        self.bytes = 0
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda value: value):
            self.embeddings: Tensor = encoder(inputs)

    def _pack(self, value: Tensor) -> Tensor:
        self.bytes += value.numel() * value.element_size()
        return value


@pytest.mark.parametrize("frozen", [[], ["conv1", "bn1", "layer1"]])
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
def test_timm_keeps_fewer_activations_and_the_same_gradient(name: str, frozen: list[str]) -> None:
    if frozen and name != "test_resnet":
        frozen = ["blocks.0"]
    size = 160 if name == "test_vit" else 32
    inputs = torch.nn.functional.interpolate(IMAGES, size)
    plain, sparing = (TimmEncoder(name, 8, frozen=frozen, grad_checkpointing=on).train() for on in (False, True))
    sparing.load_state_dict(plain.state_dict())
    kept = []
    for encoder in (plain, sparing):
        kept.append(KeptBytes(encoder, inputs))
        for _ in range(2):
            torch.autograd.backward(encoder(inputs)[:, 0].sum())
    torch.testing.assert_close(kept[1].embeddings, kept[0].embeddings)
    assert kept[1].bytes < 0.6 * kept[0].bytes
    for (key, value), other in zip(plain.named_parameters(), sparing.parameters(), strict=True):
        torch.testing.assert_close(other.grad, value.grad, msg=key)
    assert max(float(value.grad.abs().max()) for value in sparing.parameters() if value.grad is not None) > 1e-3
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(sparing.state_dict()[key], value, msg=key)  # statistics of BatchNorm among them


@pytest.mark.parametrize("name", ["dla34"])
def test_timm_has_no_checkpointing_for_some(name: str) -> None:
    with pytest.raises(
        UserError, match=rf"encoder\.grad_checkpointing: timm does not support it for '{name}'; expected false"
    ):
        TimmEncoder(name, grad_checkpointing=True)


def test_timm_refuses_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"encoder\.name: timm has no model 'resnet19x'; similar names: .*resnet"):
        TimmEncoder("resnet19x")
    with pytest.raises(UserError, match="expected pretrained=true or weights=<file>, got both"):
        TimmEncoder("test_resnet", pretrained=True, weights="x")
    with pytest.raises(UserError, match=r"encoder\.weights: no such file: .*nowhere\.pth"):
        TimmEncoder("test_resnet", weights=str(tmp_path / "nowhere.pth"))
    with pytest.raises(UserError, match=r"package 'no_such_weights' is not installed; pip install no-such-weights"):
        TimmEncoder("test_resnet", weights="package:no_such_weights/a.pth")
    with pytest.raises(UserError, match=r"no such file: .*timm.*nothing\.pth"):
        TimmEncoder("test_resnet", weights="package:timm/nothing.pth")
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not a file of tensors")
    with pytest.raises(UserError, match=r"broken\.pth is not a file of plain tensors"):
        TimmEncoder("test_resnet", weights=str(broken))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"expected a state dict in .*list\.pth, got list"):
        TimmEncoder("test_resnet", weights=str(tmp_path / "list.pth"))
    torch.save({"a": torch.zeros(2)}, tmp_path / "short.pth")
    with pytest.raises(UserError, match=r"expected \d+ tensors, .*short\.pth has 1"):
        TimmEncoder("test_resnet", weights=str(tmp_path / "short.pth"))
    state = timm.create_model("test_resnet").state_dict()
    name = next(iter(state))
    state[name] = torch.zeros(3)
    torch.save(state, tmp_path / "shape.pth")
    with pytest.raises(
        UserError, match=rf"shape\.pth does not fit, first at {name}: expected \[.*\], got \[3\]; weights of"
    ):
        TimmEncoder("test_resnet", weights=str(tmp_path / "shape.pth"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"widths": (8, 0, 8), "depths": (1, 1, 1)},
            r"expected as many widths as depths, each at least 1, got widths=\[8, 0, 8\], depths=\[1, 1, 1\]",
        ),
        ({"widths": (8,), "depths": (0,)}, r"got widths=\[8\], depths=\[0\]"),
        ({"depths": (1,)}, r"got widths=\[40, 80, 160\], depths=\[1\]"),
        ({"widths": (), "depths": ()}, r"got widths=\[\], depths=\[\]"),
        ({"stem_stride": 0}, r"encoder\.stem_stride: expected an integer >= 1, got 0"),
        ({"embedding_dim": 0}, r"encoder\.embedding_dim: expected an integer >= 1, got 0"),
    ],
)
def test_conv_net_refuses_what_is_not_allowed(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ConvNet(**settings)  # type: ignore[arg-type]


def test_mlp_names_the_size_it_needs() -> None:
    with pytest.raises(UserError, match=r"in_features: expected 3072 for inputs of shape \[3, 32, 32\], got 10"):
        MLP(in_features=10)(IMAGES)
