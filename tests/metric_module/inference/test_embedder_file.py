"""An item embedded alone equals its row in the file that ``task=embed`` wrote, for a trained encoder of each kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metric_module import Embedder, EmbeddingIndex
from tests.helpers.command_line import command_in

QUICK = ("trainer.accelerator=cpu", "report=false", "logger=csv", "trainer.enable_progress_bar=false")
SHORT = ("trainer.max_steps=3", "datamodule.num_workers=0", "datamodule.classes_per_batch=3")
IMAGES = ("datamodule=image_folder", "datamodule.root=pictures", "datamodule.image_size=32")
TEXTS = ("datamodule=manifest", "datamodule.table=texts.csv", "datamodule.text=text")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    pixels = np.random.default_rng(0)
    for number in range(36):
        kind, mode, side = [("png", "RGB", (50, 33)), ("jpg", "RGB", (31, 64)), ("png", "L", (32, 32))][number % 3]
        path = folder / "pictures" / f"class_{number // 3}" / f"{number}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (*side, 3) if mode == "RGB" else side
        Image.fromarray(pixels.integers(0, 256, shape, dtype=np.uint8)).save(path)
    words = ["one", "uno", "two and some more words", "dos", "three", "tres"] * 6
    lines = [f"{word} {number},class {number // 3}" for number, word in enumerate(words)]
    (folder / "texts.csv").write_text("\n".join(["text,label", *lines]))
    return folder


@pytest.mark.parametrize(
    "encoder",
    [
        ("encoder=conv_net", "encoder.widths=[4,8,8]"),
        pytest.param(("encoder=timm", "encoder.name=resnet10t"), marks=pytest.mark.integration),
        ("encoder=mlp", "encoder.in_features=3072", "encoder.hidden=[16]"),
    ],
    ids=["conv_net", "timm", "mlp"],
)
def test_images(encoder: tuple[str, ...], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    name = encoder[0].partition("=")[2]
    command = command_in(home, monkeypatch)
    assert command(*IMAGES, *encoder, *SHORT, *QUICK, f"hydra.run.dir={name}") == 0
    checkpoint = f"ckpt_path={name}/checkpoints/best.ckpt"
    assert command("task=embed", checkpoint, *QUICK, f"hydra.run.dir={name}_rows") == 0
    index, embedder = EmbeddingIndex.read(f"{name}_rows/embeddings.arrow"), Embedder.load(name, device="cpu")
    rows = index.embeddings
    assert len(index) == 36
    assert torch.allclose(rows.norm(dim=1), torch.ones(36))
    alone = torch.cat([embedder.embed([path]) for path in index.names])
    assert (alone - rows).abs().max() <= 1e-6
    for size in (1, 7, 64):
        assert (embedder.embed(index.names, batch_size=size) - rows).abs().max() <= 1e-6
    assert embedder.threshold is not None
    assert embedder.threshold == embedder.figures["val"]["best_threshold"] == index.threshold


@pytest.mark.parametrize(
    "encoder",
    [
        ("encoder=char_conv_net", "encoder.width=8"),
        pytest.param(("encoder=text", "encoder.model={}", "encoder.embedding_dim=6"), marks=pytest.mark.integration),
    ],
    ids=["char_conv_net", "text"],
)
def test_texts(encoder: tuple[str, ...], home: Path, monkeypatch: pytest.MonkeyPatch, tiny_text: str) -> None:
    name = encoder[0].partition("=")[2]
    command, words = command_in(home, monkeypatch), [word.format(tiny_text) for word in encoder]
    assert command(*TEXTS, *words, *SHORT, *QUICK, f"hydra.run.dir={name}") == 0
    checkpoint = f"ckpt_path={name}/checkpoints/best.ckpt"
    assert command("task=embed", checkpoint, *QUICK, f"hydra.run.dir={name}_rows") == 0
    index, embedder = EmbeddingIndex.read(f"{name}_rows/embeddings.arrow"), Embedder.load(name, device="cpu")
    texts = [line.rpartition(",")[0] for line in (home / "texts.csv").read_text().splitlines()[1:]]
    rows = index.embeddings
    alone = torch.cat([embedder.embed([text]) for text in texts])
    assert (alone - rows).norm(dim=1).max() <= 1e-5 * rows.norm(dim=1).min()
    assert (rows[0] - rows[1]).norm() > 1e-3
