"""Tests of the palette: exact for few colours, close for many."""

from __future__ import annotations

import numpy as np

from benchmarks.emoji_palette import Pixels, quantise


def noise(*shape: int) -> Pixels:
    """Draw random bytes."""
    return np.random.Generator(np.random.PCG64(0)).integers(0, 256, shape, np.uint8)


def test_few_colours_come_back_exactly() -> None:
    colours = np.unique(noise(60, 3) // 4 * 4, axis=0)
    images = colours[noise(5, 8, 8) % len(colours)]
    index, palette = quantise(images)
    assert index.dtype == palette.dtype == np.uint8
    assert index.shape == (5, 8, 8)
    assert (palette[index] == images).all()


def test_white_stays_white_and_no_other_entry_is_used_for_it() -> None:
    images = noise(4, 16, 16, 3)
    images[:, :8] = 255
    images[:, 8:10] = 254
    index, palette = quantise(images, colours=8)
    assert len(palette) <= 8
    assert palette[-1].tolist() == [255, 255, 255]
    assert (index[:, :8] == len(palette) - 1).all()
    assert (index[:, 12:] != len(palette) - 1).any()


def test_white_takes_no_other_entry_and_no_weight() -> None:
    images = np.full((1, 8, 8, 3), 255, np.uint8)
    images[0, 0] = [0, 0, 200]
    index, palette = quantise(images, colours=2)
    assert palette.tolist() == [[0, 0, 200], [255, 255, 255]]
    images[0, 1:, 1:] = 252
    index, palette = quantise(images)
    assert (palette[index] == images).all(), "nearly white is not white"


def test_white_alone() -> None:
    index, palette = quantise(np.full((1, 2, 2, 3), 255, np.uint8))
    assert palette.tolist() == [[255, 255, 255]]
    assert index.tolist() == [[[0, 0], [0, 0]]]


def test_many_colours_come_back_close() -> None:
    images = noise(8, 32, 32, 3)
    index, palette = quantise(images)
    assert 200 < len(palette) <= 256
    error = np.sqrt(((palette[index].astype(float) - images) ** 2).mean())
    uniform_grid = 255 / 6 / np.sqrt(12)
    assert 0 < error < 1.6 * uniform_grid
    coarse_index, coarse = quantise(images, colours=32)
    assert np.sqrt(((coarse[coarse_index].astype(float) - images) ** 2).mean()) > 1.5 * error


def test_the_same_images_give_the_same_palette_in_any_order() -> None:
    images = noise(6, 16, 16, 3)
    index, palette = quantise(images)
    backwards, same = quantise(images[::-1].copy())
    assert (same == palette).all()
    assert (backwards[::-1] == index).all()
