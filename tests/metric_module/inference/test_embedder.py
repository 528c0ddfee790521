"""A trained encoder as one object: what it reads, and that alone, in a batch or in a file an item has one embedding."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from metric_module import Embedder, Encoder, UserError
from metric_module.distances import Cosine, Euclidean
from metric_module.encoders import MLP
from metric_module.inference import UnreadableItemsError
from metric_module.preprocessing import ImageInput, SeriesInput, TextInput, TowersInput, VectorInput
from tests.helpers.trained import write_checkpoint

ENCODERS = "metric_module.encoders."
TEXTS = ["eins", "zwei und zwanzig", "d", "the quick brown fox", "zwei", ""]


def pictures(count: int = 6) -> list[Image.Image]:
    pixels = np.random.default_rng(1)
    return [Image.fromarray(pixels.integers(0, 256, (40, 30, 3), dtype=np.uint8)) for _ in range(count)]


IMAGES: dict[str, dict[str, Any]] = {
    "ConvNet": {"widths": [4, 8, 8], "embedding_dim": 5},
    "TimmEncoder": {"name": "resnet10t", "embedding_dim": 5, "pretrained": False, "weights": "gone.pth"},
    "MLP": {"in_features": 3 * 32 * 32, "hidden": [8], "embedding_dim": 5},
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("size", [1, 4, 256])
def test_images(name: str, size: int, tmp_path: Path) -> None:
    """The initial weights of the training are gone, and are not needed."""
    node = {"_target_": ENCODERS + name, **IMAGES[name]}
    reader = ImageInput(32)
    file = tmp_path / "run" / "checkpoints" / "best.ckpt"
    encoder = write_checkpoint(file, {key: value for key, value in node.items() if key != "weights"}, reader)
    content = torch.load(file, weights_only=True)
    content["config"]["encoder"] = node
    torch.save(content, file)
    embedder = Embedder.load(tmp_path / "run", device="cpu")
    items = pictures()
    found = embedder.embed(items, batch_size=size)
    with torch.inference_mode():
        alone = torch.cat([encoder(reader(item)[None]) for item in items])
    assert found.dtype == torch.float32
    assert (found - alone).abs().max() <= 1e-6
    assert (found[0] - found[1]).abs().max() > 1e-3
    assert (embedder.threshold, embedder.preprocessing, embedder.embedding_dim) == (0.75, reader, 5)


@pytest.mark.parametrize(
    ("node", "reader", "items"),
    [
        ({"_target_": ENCODERS + "CharConvNet", "width": 8, "depth": 1, "embedding_dim": 5}, TextInput(), TEXTS),
        (
            {"_target_": ENCODERS + "MLP", "in_features": 3, "embedding_dim": 5},
            VectorInput(3),
            torch.randn(6, 3).numpy(),
        ),
        ({"_target_": ENCODERS + "LookupEncoder", "count": 9, "embedding_dim": 5}, None, list(torch.tensor([3, 8, 0]))),
        (
            {"_target_": ENCODERS + "SeriesConvNet", "widths": [4, 4, 4], "embedding_dim": 5},
            SeriesInput((1, 30)),
            [np.random.default_rng(number).normal(size=(1, 30)) for number in range(6)],
        ),
    ],
    ids=["texts", "vectors", "ids", "series"],
)
@pytest.mark.parametrize("size", [1, 4, 256])
def test_other_items(node: dict[str, Any], reader: Any, items: Any, size: int, tmp_path: Path) -> None:
    encoder = write_checkpoint(tmp_path / "best.ckpt", node, reader)
    embedder = Embedder.load(tmp_path / "best.ckpt", device="cpu")
    found = embedder.embed(items, batch_size=size)
    inputs = [embedder.read(item) for item in items]
    with torch.inference_mode():
        alone = torch.cat([encoder([one] if isinstance(one, str) else one[None]) for one in inputs])
    assert len(found) == len(items)
    assert (found - alone).abs().max() <= 1e-5 * alone.norm(dim=1).max()
    assert (found[0] - found[1]).abs().max() > 1e-3
    if not isinstance(inputs[0], str):
        assert torch.allclose(embedder.embed(torch.stack(inputs)), found, atol=1e-6)


def test_pretrained_texts(tiny_text: str, tmp_path: Path) -> None:
    encoder = write_checkpoint(
        tmp_path / "best.ckpt", {"_target_": ENCODERS + "TextEncoder", "model": tiny_text}, TextInput()
    )
    found = Embedder.load(tmp_path / "best.ckpt").embed(TEXTS, batch_size=2)
    with torch.inference_mode():
        alone = torch.cat([encoder([text]) for text in TEXTS])
    assert (found - alone).abs().max() <= 1e-5
    assert (found[0] - found[1]).abs().max() > 1e-3


TOWERS = {
    "_target_": ENCODERS + "MultiEncoder",
    "encoders": {
        "text": {"_target_": ENCODERS + "CharConvNet", "width": 8, "depth": 1, "embedding_dim": 5},
        "image": {"_target_": ENCODERS + "ConvNet", "widths": [4, 4, 4], "embedding_dim": 5},
    },
}


def test_towers(tmp_path: Path) -> None:
    reader = TowersInput({"text": TextInput(), "image": ImageInput(32)})
    encoder: Any = write_checkpoint(tmp_path / "best.ckpt", TOWERS, reader)
    texts = Embedder.load(tmp_path / "best.ckpt", device="cpu", tower="text")
    images = Embedder.load(tmp_path / "best.ckpt", device="cpu", tower="image")
    with torch.inference_mode():
        assert torch.allclose(texts.embed(TEXTS), encoder({"text": TEXTS}), atol=1e-6)
        inputs = torch.stack([ImageInput(32)(item) for item in pictures()])
        assert torch.allclose(images.embed(pictures()), encoder({"image": inputs}), atol=1e-6)
    assert images.config is not None and images.config["encoder"] == TOWERS["encoders"]["image"]  # type: ignore[index]
    with pytest.raises(UserError, match=r"^tower: expected one of text, image, got None; give tower=<name>"):
        Embedder.load(tmp_path / "best.ckpt")
    write_checkpoint(tmp_path / "one.ckpt", TOWERS["encoders"]["text"], TextInput())  # type: ignore[index]
    with pytest.raises(UserError, match=r"^tower: expected none, as there is one encoder, got 'text'; leave tower out"):
        Embedder.load(tmp_path / "one.ckpt", tower="text")


@pytest.fixture
def embedder() -> Embedder:
    torch.manual_seed(0)
    return Embedder(MLP(in_features=12, hidden=(8,), embedding_dim=4), Euclidean(), ImageInput(2), 0.5, device="cpu")


def test_items_of_every_kind(embedder: Embedder, tmp_path: Path) -> None:
    picture = pictures(1)[0]
    path = tmp_path / "a.png"
    picture.save(path)
    kinds = [
        path,
        str(path),
        picture,
        np.asarray(picture),
        path.read_bytes(),
        torch.from_numpy(np.array(picture)).permute(2, 0, 1),
    ]
    found = embedder.embed(kinds)
    assert (found == found[0]).all()
    with path.open("rb") as file, Image.open(path) as opened:
        assert torch.equal(embedder.embed([file, opened]), found[:2])


def test_unreadable_items_are_all_named(embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    items = [pictures(1)[0]] * 5 + [tmp_path / "a.png", tmp_path / "none.png", 3.5]
    with pytest.raises(UnreadableItemsError) as caught:
        embedder.embed(items, batch_size=2)
    assert str(caught.value).startswith(f"3 of 8 items cannot be read: {tmp_path}/a.png (cannot identify image file")
    assert f"{tmp_path}/none.png ([Errno 2] No such file or directory" in str(caught.value)
    assert "item 7 (expected an image: a path, bytes, a PIL image or pixels, got float)" in str(caught.value)
    assert [*caught.value.reasons] == [5, 6, 7]


def test_a_long_list_of_unreadable_items_is_cut(embedder: Embedder) -> None:
    with pytest.raises(UnreadableItemsError, match=r"^25 of 25 items cannot be read: 0.png .* and 5 more$"):
        embedder.embed([f"{number}.png" for number in range(25)])


@pytest.mark.parametrize("item", ["a.png", b"abc", Path("a.png"), {"a": 1}, 3, pictures(1)[0]])
def test_a_single_item_is_refused(embedder: Embedder, item: Any) -> None:
    kind = type(item).__name__
    with pytest.raises(
        UserError, match=rf"^expected a list of items or a tensor of inputs, got a {kind}; for a single"
    ):
        embedder.embed(item)


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_a_batch_size_below_one_is_refused(embedder: Embedder, size: Any) -> None:
    with pytest.raises(UserError, match=rf"^batch_size: expected an integer of 1 or more, got {size}$"):
        embedder.embed(pictures(), batch_size=size)


def test_no_items(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == embedder.embed(torch.zeros(0, 3, 2, 2)).shape == (0, 4)


class Strange(Encoder):
    """Returns what the test asks for."""

    embedding_dim = 4

    def __init__(self, rows: int, value: float) -> None:
        super().__init__()
        self.rows, self.value = rows, value

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.full((self.rows, 4), self.value)


def test_embeddings_of_another_number_or_not_finite_are_refused() -> None:
    items = [[1.0], [2.0]]
    with pytest.raises(UserError, match=r"^Strange: expected one embedding for each of 2 items, got 8$"):
        Embedder(Strange(8, 0.0), Euclidean(), VectorInput(1), device="cpu").embed(items)
    with pytest.raises(UserError, match=r"^Strange: NaN or infinity in 2 embeddings: item 0, item 1$"):
        Embedder(Strange(2, torch.nan), Euclidean(), VectorInput(1), device="cpu").embed(items)


def test_without_preprocessing_inputs_are_needed() -> None:
    plain = Embedder(MLP(in_features=3), Euclidean(), device="cpu")
    assert plain.embed(torch.zeros(2, 3)).shape == (2, 128)
    with pytest.raises(
        UnreadableItemsError, match=r"the training did not define how a ndarray becomes an encoder input"
    ):
        plain.embed([np.zeros(3)])


def test_same_and_distance(embedder: Embedder) -> None:
    first, second = pictures(2)
    rows = embedder.embed([first, second])
    expected = float(torch.linalg.vector_norm(rows[0].double() - rows[1].double()))
    found = embedder.same(first, second, threshold=expected)
    assert (found.same, found.threshold) == (True, expected)
    assert found.distance == pytest.approx(expected, abs=1e-12)
    assert not embedder.same(first, second, threshold=expected - 1e-9).same
    assert embedder.same(first, first).threshold == 0.5
    assert embedder.distance(rows, rows[:1]).shape == (2, 1)
    cosine = Embedder(embedder.encoder, Cosine(), embedder.preprocessing, device="cpu")
    assert float(cosine.distance(rows[:1], rows[1:])) == pytest.approx(expected**2 / 2, rel=1e-6)
    with pytest.raises(UserError, match=r"^threshold: expected one, as the training has none"):
        cosine.same(first, second)


def test_names(embedder: Embedder, tmp_path: Path) -> None:
    pictures(1)[0].save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        items = [tmp_path / "b.png", "c\x1b.png", os.fsencode("d.png"), opened, pictures(1)[0]]
        found = [embedder.name_of(item, position) for position, item in enumerate(items)]
    assert found == [f"{tmp_path}/b.png", "c\\x1b.png", "item 2", f"{tmp_path}/a.png", "item 4"]
    texts = Embedder(embedder.encoder, Euclidean(), TextInput(), device="cpu")
    assert texts.name_of("x" * 300, 0) == "x" * 200 + "..."


def test_the_encoder_is_in_evaluation_mode_and_gradients_are_off(tmp_path: Path) -> None:
    node = {"_target_": ENCODERS + "ConvNet", "widths": [4, 4, 4]}
    write_checkpoint(tmp_path / "best.ckpt", node, ImageInput(32))
    found = Embedder.load(tmp_path / "best.ckpt", device="cpu")
    assert not any(part.training for part in found.encoder.modules())
    assert not any(parameter.requires_grad for parameter in found.encoder.parameters())
    assert not found.embed(pictures(2)).requires_grad


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_this_machine_lacks(device: str) -> None:
    with pytest.raises(UserError, match=rf"^device={device}: .*; give cpu, cuda or mps$"):
        Embedder(MLP(in_features=3), Euclidean(), device=device)
