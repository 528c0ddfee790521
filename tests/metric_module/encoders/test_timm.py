"""Models of timm: the width of their features, the size of their images, and models that cannot be built."""

from __future__ import annotations

from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch

from metric_module import UserError
from metric_module.encoders import MultiEncoder, TimmEncoder

WIDER = [
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small",
    "vgg11",
    "ghostnet_050",
    "lcnet_035",
    "efficientvit_b0",
    "repghostnet_050",
    "fasternet_t0",
    "hardcorenas_a",
    "hgnetv2_b0",
]
"""Models with a layer between the pooling and the classifier."""
SAME = ["test_resnet", "vit_tiny_patch16_224", "tf_efficientnet_lite0", "convnext_atto"]


def check_width(name: str) -> int:
    """Embed images of the model's own size on the meta device, and return the width of the features."""
    with torch.device("meta"):
        encoder = TimmEncoder(name, embedding_dim=8)
    size = encoder.backbone.pretrained_cfg["input_size"]  # type: ignore[index]
    images = torch.empty(2, *size, device="meta")
    assert encoder.eval()(images).shape == encoder.train()(images).shape == (2, 8)
    return encoder.head.linear.in_features


@pytest.mark.parametrize("name", WIDER)
def test_the_head_is_as_wide_as_the_pooled_features(name: str) -> None:
    with torch.device("meta"):
        assert check_width(name) != timm.create_model(name).num_features


@pytest.mark.parametrize("name", SAME)
def test_heads_of_other_models_stay_as_they_were(name: str) -> None:
    with torch.device("meta"):
        assert check_width(name) == timm.create_model(name).num_features


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(timm.list_modules()))
def test_every_family(family: str) -> None:
    names = timm.list_models(module=family)
    if names:
        check_width(min(names, key=lambda name: (not name.startswith("test_"), len(name))))


def test_a_size_that_the_model_does_not_take_is_named() -> None:
    encoder = TimmEncoder("test_vit_relpos", embedding_dim=8)
    sizes = "takes no images of 64 x 64 pixels; it was made for 160 x 160"
    message = rf"name: test_vit_relpos {sizes}: give datamodule\.image_size=160"
    for mode in (True, False):
        with pytest.raises(UserError, match=rf"^encoder\.{message}$"):
            encoder.train(mode)(torch.zeros(2, 3, 64, 64))
    with pytest.raises(UserError, match=rf"^encoder\.encoders\.image\.{message}$"):
        MultiEncoder({"image": encoder})({"image": torch.zeros(2, 3, 64, 64)})
    assert encoder(torch.zeros(2, 3, 160, 160)).shape == (2, 8)
    with pytest.raises(
        UserError, match=r"expected a float tensor of shape \[B, 3, H, W\] \(encoder\.in_channels=3\), got"
    ):
        encoder(torch.zeros(2, 1, 160, 160))


@pytest.mark.parametrize("size", [64, 160])
def test_other_errors_of_a_model_are_not_blamed_on_the_size(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TimmEncoder("test_resnet", embedding_dim=8)

    def broken(inputs: Any) -> Any:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(encoder.backbone, "forward_features", broken)
    with pytest.raises(RuntimeError, match="out of luck"):
        encoder(torch.zeros(2, 3, size, size))


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError,
        match=r"^encoder\.pretrained: the weights of test_resnet cannot be downloaded \(.*\); give encoder\.weights",
    ):
        TimmEncoder("test_resnet", pretrained=True)


def test_a_model_that_timm_cannot_build() -> None:
    with pytest.raises(
        UserError, match=r"^encoder\.name: timm cannot build test_resnet\.no_such: Invalid pretrained tag \(no_such\)"
    ):
        TimmEncoder("test_resnet.no_such")


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_every_stage_is_pooled_and_has_the_same_weight(name: str) -> None:
    encoder = TimmEncoder(name, embedding_dim=8, pool_stages=True).eval()
    images = torch.randn(2, 3, 64, 64)
    described: Any = encoder.backbone.feature_info
    stages: list[torch.Tensor] = []
    for stage in described:
        encoder.backbone.get_submodule(stage["module"]).register_forward_hook(
            lambda module, inputs, output: stages.append(output)
        )
    last = encoder.backbone(images)
    pooled = [last, *(stage.mean(dim=(2, 3)) for stage in stages)]
    features = torch.cat([part / part.norm(dim=1, keepdim=True) for part in pooled], dim=1)
    features *= (features.shape[1] / len(pooled)) ** 0.5  # a mean square of one
    expected = torch.nn.functional.normalize(encoder.head.linear(features))
    assert len(pooled) == len(described) + 1 >= 5
    torch.testing.assert_close(encoder(images), expected)
    torch.testing.assert_close(features.square().mean(dim=1), torch.ones(2))
