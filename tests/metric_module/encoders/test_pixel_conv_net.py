"""PixelConvNet: embeddings of single pixels."""

from __future__ import annotations

import pytest
import torch

from metric_module import UserError
from metric_module.encoders import PixelConvNet


def test_a_pixel_has_the_embedding_of_its_place() -> None:
    torch.manual_seed(0)
    encoder = PixelConvNet(embedding_dim=5, widths=(4, 6, 8)).eval()
    images = torch.randn(3, 3, 13, 10)  # sides that two halvings do not divide
    pixels = torch.tensor([[2, 12, 9], [0, 0, 0], [1, 3, 7], [2, 12, 9]])
    with torch.no_grad():
        embeddings = encoder({"images": images, "pixels": pixels})
        every = encoder.head(encoder.features(images).permute(0, 2, 3, 1))  # (S, H, W, D)
    assert every.shape == (3, 13, 10, 5)
    torch.testing.assert_close(embeddings, torch.stack([every[tuple(place)] for place in pixels.tolist()]))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))
    assert embeddings[0].equal(embeddings[3]) and (embeddings[0] - embeddings[1]).norm() > 1e-3


def test_pixels_that_look_alike_differ_by_position() -> None:
    torch.manual_seed(0)
    encoder = PixelConvNet(widths=(4, 6), normalize=False).eval()
    blank = {"images": torch.zeros(1, 3, 32, 32), "pixels": torch.tensor([[0, 10, 10], [0, 20, 20]])}
    first, second = encoder(blank)
    assert (first - second).norm() > 1e-3


def test_the_gradient_is_the_same_every_time() -> None:
    torch.manual_seed(0)
    encoder = PixelConvNet(widths=(4, 6))
    inputs = {"images": torch.randn(2, 3, 16, 16), "pixels": torch.randint(0, 2, (500, 3))}
    found = []
    for _ in range(2):
        encoder.zero_grad()
        encoder(inputs)[:, 0].sum().backward()
        found.append([parameter.grad for parameter in encoder.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


@pytest.mark.parametrize("widths", [(), (8, 0)])
def test_widths_are_checked(widths: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=rf"encoder.widths: expected widths of 1 or more, got \[{str(widths)[1:-1]}"):
        PixelConvNet(widths=widths)
