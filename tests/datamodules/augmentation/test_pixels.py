"""Tests of augmentation: each kind against a simple reference, and independence of the rest of the batch."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from datamodules.augmentation import pixels as augment_module
from datamodules.augmentation.pixels import Augment
from metric_module.errors import UserError
from metric_module.keyed_random import combine

STRENGTHS = [field.name for field in dataclasses.fields(Augment) if field.name not in {"fill", "low", "high"}]
NONE = Augment(**{**dict.fromkeys(STRENGTHS, 0.0), "erase_area": 0.2})
STRONG = Augment(
    rotation=40,
    scale=0.5,
    shift=0.2,
    shear=20,
    flip=0.5,
    hue=90,
    saturation=0.5,
    brightness=0.2,
    contrast=0.5,
    grey=0.3,
    erase=0.5,
)
END = 1 - 1e-12


def only(**strengths: float) -> Augment:
    """Make an augmentation of one kind."""
    return dataclasses.replace(NONE, **strengths)


def pictures(count: int = 4, height: int = 32, width: int = 32) -> Tensor:
    """Make images in [-1, 1], smooth enough for bilinear interpolation and different everywhere."""
    numbers = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    return torch.nn.functional.interpolate(numbers, size=(height, width), mode="bilinear", align_corners=False)


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Replace the draws of every image by neutral ones, which a test can change."""
    draws = torch.full((16,), 0.5, dtype=torch.float64)
    monkeypatch.setattr(augment_module, "keyed_uniform", lambda keys, n: draws[:n].expand(len(keys), n))
    return draws


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 2e-3), (torch.float64, 1e-5)])
def test_the_result_has_the_type_of_the_images(kind: torch.dtype, tolerance: float) -> None:
    images, keys = pictures().to(kind), torch.arange(4)
    augmented = STRONG(images, keys)
    exact = STRONG(images.float(), keys)
    assert augmented.dtype == kind
    assert not torch.equal(exact, images.float())
    torch.testing.assert_close(augmented.float(), exact, atol=tolerance, rtol=0)


def test_no_strength_changes_nothing() -> None:
    images = pictures()
    torch.testing.assert_close(NONE(images, torch.arange(4)), images)


@pytest.mark.parametrize(("uniform", "turns"), [(0.75, 1), (0.25, -1), (0.0, 2)])
def test_rotation(draw: Tensor, uniform: float, turns: int) -> None:
    draw[0] = uniform
    images = pictures()
    torch.testing.assert_close(only(rotation=180)(images, torch.arange(4)), images.rot90(turns, (2, 3)))


def test_rotation_keeps_shapes_in_oblong_images(draw: Tensor) -> None:
    draw[0] = 0.75
    images = pictures(height=16, width=32)
    turned = only(rotation=180)(images, torch.arange(4))
    middle = slice(8, 24)
    torch.testing.assert_close(turned[..., middle], images[..., middle].rot90(1, (2, 3)))
    assert (turned[..., :7] == 1).all()
    assert (turned[..., 25:] == 1).all()


def test_flip(draw: Tensor) -> None:
    images = pictures()
    draw[5] = 0.3
    torch.testing.assert_close(only(flip=0.31)(images, torch.arange(4)), images.flip(3))
    torch.testing.assert_close(only(flip=0.29)(images, torch.arange(4)), images)


def test_shift(draw: Tensor) -> None:
    draw[2], draw[3] = END, 0.25
    images = pictures()
    moved = only(shift=0.25, fill=0.5)(images, torch.arange(4))
    torch.testing.assert_close(moved[:, :, 4:, :24], images[:, :, :-4, 8:])
    assert (moved[:, :, :4] == 0.5).all()
    assert (moved[:, :, :, 24:] == 0.5).all()


@pytest.mark.parametrize(("uniform", "factor"), [(END, 2.0), (0.0, 0.5), (0.5, 1.0)])
def test_scale(draw: Tensor, uniform: float, factor: float) -> None:
    draw[1] = uniform
    images = torch.ones(1, 1, 64, 64)
    images[:, :, 24:40, 24:40] = -1
    area = (only(scale=1)(images, torch.arange(1)) < 0).sum()
    assert area == (16 * factor) ** 2


def test_shear(draw: Tensor) -> None:
    draw[4] = END
    images = torch.ones(1, 1, 33, 33)
    images[:, :, :, 16] = -1
    sheared = only(shear=45)(images, torch.arange(1))
    torch.testing.assert_close(sheared[0, 0].argmin(dim=1), torch.arange(33).flip(0), atol=1, rtol=0)


def test_order_of_the_geometry(draw: Tensor) -> None:
    draw[0], draw[4], draw[5] = 0.75, 0.8, 0.1
    images, keys = pictures(), torch.arange(4)
    steps = only(rotation=180)(only(shear=40)(only(flip=0.5)(images, keys), keys), keys)
    torch.testing.assert_close(only(rotation=180, shear=40, flip=0.5)(images, keys), steps, atol=1e-4, rtol=0)


def test_hue_turns_around_grey(draw: Tensor) -> None:
    draw[6] = 0.5 + 1 / 3
    images = pictures()
    torch.testing.assert_close(only(hue=180)(images, torch.arange(4)), images.roll(1, 1))
    grey = images[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(only(hue=180)(grey, torch.arange(4)), grey)


def test_saturation_and_grey(draw: Tensor) -> None:
    images = pictures() / 2
    mean = images.mean(dim=1, keepdim=True)
    draw[7] = 0.75
    torch.testing.assert_close(only(saturation=0.8)(images, torch.arange(4)), mean + 1.4 * (images - mean))
    draw[10] = 0.1
    torch.testing.assert_close(only(grey=0.2)(images, torch.arange(4)), mean.expand_as(images))
    torch.testing.assert_close(only(grey=0.05)(images, torch.arange(4)), images)


def test_brightness_and_contrast_are_clamped(draw: Tensor) -> None:
    draw[8], draw[9] = 0.75, 0.25
    images = pictures().abs()
    changed = only(brightness=0.2, contrast=0.6, low=0.0)(images, torch.arange(4))
    torch.testing.assert_close(changed, ((images - 0.5) * 0.7 + 0.5 + 0.1).clamp(0, 1))
    draw[8] = 0.0
    dark = only(brightness=1.0)(images, torch.arange(4))
    assert (dark == -1).all()


def test_erase(draw: Tensor) -> None:
    draw[11], draw[12], draw[13], draw[14], draw[15] = 0.2, END, 0.5, 0.5, 0.25
    images = pictures() - 0.5
    erased = only(erase=0.3, erase_area=0.25)(images, torch.arange(4)) == 1
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[8:24, :16] = True
    assert (erased == expected).all()
    assert not (only(erase=0.1)(images, torch.arange(4)) == 1).any()


def test_every_kind_moves_with_the_key() -> None:
    images = pictures(1).expand(64, -1, -1, -1)
    keys = combine(1, torch.arange(64))
    for name in (
        "rotation",
        "scale",
        "shift",
        "shear",
        "flip",
        "hue",
        "saturation",
        "brightness",
        "contrast",
        "grey",
        "erase",
    ):
        results = only(**{name: 0.5})(images, keys)
        distinct = {result.numpy().tobytes() for result in results}
        assert len(distinct) == 2 if name in ("flip", "grey") else len(distinct) > 20, name


def test_an_image_depends_on_its_own_key_alone() -> None:
    images, keys = pictures(6), combine(0, torch.tensor([4, 1, 1, 7, 8, 9]))
    images[2] = images[1]
    before = torch.get_rng_state()
    results = STRONG(images, keys)
    torch.manual_seed(123)
    assert torch.equal(STRONG(images, keys), results)
    torch.manual_seed(0)
    assert torch.equal(results[1], results[2])
    assert not torch.equal(results[0], STRONG(images[:1], keys[1:2])[0])
    for i in range(6):
        torch.testing.assert_close(STRONG(images[i : i + 1], keys[i : i + 1])[0], results[i], atol=1e-5, rtol=0)
    torch.set_rng_state(before)
    STRONG(images, keys)
    assert torch.equal(torch.get_rng_state(), before)


def test_inputs_are_left_alone_and_outputs_stay_in_range() -> None:
    images = pictures(32)
    copy = images.clone()
    results = STRONG(images, torch.arange(32))
    assert torch.equal(images, copy)
    assert results.dtype == torch.float32
    assert results.min() >= -1
    assert results.max() <= 1
    assert (results - images).abs().mean(dim=(1, 2, 3)).min() > 0.02


def test_background_of_the_fill_colour_stays() -> None:
    geometric = only(rotation=180, scale=1, shift=0.5, shear=45, flip=0.5, saturation=0.5, hue=90)
    assert torch.allclose(geometric(torch.ones(8, 3, 16, 16), torch.arange(8)), torch.ones(()))


@pytest.mark.parametrize("name", STRENGTHS)
def test_strengths_out_of_range(name: str) -> None:
    with pytest.raises(UserError, match=rf"expected augmentation strength 0 <= {name} <= [0-9inf]+, got -0\.5"):
        Augment(**{name: -0.5})
    with pytest.raises(UserError, match=rf"0 <= {name} <= [0-9inf]+, got nan"):
        Augment(**{name: float("nan")})


def test_bad_range_and_images() -> None:
    with pytest.raises(UserError, match=r"expected low < high, got low=1\.0 and high=1\.0"):
        Augment(low=1.0)
    with pytest.raises(UserError, match=r"shape \(B, C, H, W\), got torch\.float32 of shape \(3, 8, 8\)"):
        NONE(torch.zeros(3, 8, 8), torch.arange(3))
    with pytest.raises(UserError, match=r"got torch\.uint8 of shape \(1, 3, 8, 8\)"):
        NONE(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.arange(1))
    with pytest.raises(UserError, match="hue=30 needs images of 3 channels, got 1"):
        only(hue=30)(torch.zeros(1, 1, 8, 8), torch.arange(1))
