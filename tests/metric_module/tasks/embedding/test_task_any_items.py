"""task=embed of items of every kind: one row per item, with its name, and a label where there is one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from omegaconf import DictConfig
from PIL import Image
from pyarrow import parquet

from metric_module.tasks import embed
from metric_module.tasks.embedding.shards import BLOCK_ROWS

Compose = Callable[..., DictConfig]
IMAGES: tuple[str, ...] = ("datamodule.num_workers=0", "encoder=conv_net", "encoder.widths=[4,4]")
IMAGES += ("encoder.depths=[1,1]", "encoder.embedding_dim=3")
CHARS: tuple[str, ...] = ("encoder=char_conv_net", "encoder.embedding_dim=3", "datamodule.num_workers=0")


def picture(path: Path, seed: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 20, 3)).astype(np.uint8)).save(path)
    return str(path)


def rows(small: Compose, *words: str) -> list[tuple[str, int, str | None, str | None]]:
    """Embed, check that the embeddings of different items differ, and return name, id, label and split of each."""
    cfg = small("task=embed", *words)
    embed(cfg)
    with pa.OSFile(f"{cfg.output_dir}/embeddings.arrow") as file:
        table = pa.ipc.open_file(file).read_all()
    embeddings = np.stack(table["embedding"].to_numpy())
    assert len(np.unique(embeddings, axis=0)) == len(table)
    return list(zip(*(table[name].to_pylist() for name in ("name", "id", "label", "split")), strict=True))


@pytest.mark.parametrize("given", ["absolute", "relative"])
def test_a_flat_folder(small: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "flat" if given == "absolute" else Path("flat")
    paths = [picture(root / f"{name}.png", seed) for seed, name in enumerate("abc")]
    words = (
        "datamodule=image_folder",
        "datamodule.image_size=16",
        f"datamodule.root='{root}'",
        f"+datamodule.cache_dir='{tmp_path}'",
        *IMAGES,
    )
    assert rows(small, *words) == [(path, id, None, None) for id, path in enumerate(paths)]
    for path in paths:
        Image.open(path).load()


def test_one_image_per_class(small: Compose, tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"faces/{name}/1.png", seed) for seed, name in enumerate(["ann", "bob", "cy"])]
    root = f"datamodule.root='{tmp_path / 'faces'}'"
    found = rows(
        small,
        "datamodule=image_folder",
        "datamodule.image_size=16",
        root,
        f"+datamodule.cache_dir='{tmp_path}'",
        *IMAGES,
    )
    assert [row[:3] for row in found] == [(paths[0], 0, "ann"), (paths[1], 1, "bob"), (paths[2], 2, "cy")]


def table_of(tmp_path: Path, *lines: str) -> str:
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return f"datamodule.table='{tmp_path / 'table.csv'}'"


def test_a_table_of_images_without_labels(small: Compose, tmp_path: Path) -> None:
    first, second = picture(tmp_path / "in/a.png", 0), picture(tmp_path / "in/b.png", 1)
    words = (
        "datamodule=manifest",
        "datamodule.image=file",
        "+datamodule.image_size=16",
        f"+datamodule.cache_dir='{tmp_path}'",
        *IMAGES,
    )
    table = table_of(tmp_path, "file", "in/b.png", first)
    assert rows(small, *words, table) == [(second, 0, None, None), (first, 1, None, None)]


def test_some_labels(small: Compose, tmp_path: Path) -> None:
    table = table_of(tmp_path, "text,label", "one,b", "two,", "three,a")
    found = rows(small, "datamodule=manifest", "datamodule.text=text", table, *CHARS)
    assert found == [("0", 0, "b", None), ("1", 1, None, None), ("2", 2, "a", None)]


@pytest.mark.integration
def test_ten_thousand_texts(small: Compose, tmp_path: Path) -> None:
    table = table_of(tmp_path, "text", *(f"text number {id}" for id in range(10_000)))
    words = ("datamodule=manifest", "datamodule.text=text", table, *CHARS)
    assert rows(small, *words) == [(str(id), id, None, None) for id in range(10_000)]


def test_vectors_without_labels(small: Compose, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": [[1.0, 2.0], [3.0, 5.0]]}), tmp_path / "t.parquet")
    table = f"datamodule.table='{tmp_path / 't.parquet'}'"
    words: tuple[str, ...] = ("datamodule=manifest", "+datamodule.array=x", table, "datamodule.num_workers=0")
    words += ("encoder=mlp", "encoder.in_features=2", "encoder.embedding_dim=3")
    assert rows(small, *words) == [("0", 0, None, None), ("1", 1, None, None)]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_file_name_that_is_no_text(small: Compose, tmp_path: Path) -> None:
    path = picture(tmp_path / "flat/a.png", 0)
    picture(tmp_path / "flat/b.png", 1)
    os.rename(path, os.fsencode(str(tmp_path / "flat/")) + b"/\xff.png")  # noqa: PTH104  # bytes
    root = f"datamodule.root='{tmp_path / 'flat'}'"
    found = rows(
        small,
        "datamodule=image_folder",
        "datamodule.image_size=16",
        root,
        f"+datamodule.cache_dir='{tmp_path}'",
        *IMAGES,
    )
    assert [name for name, *_ in found] == [f"{tmp_path}/flat/b.png", f"{tmp_path}/flat/\\udcff.png"]


def test_names_are_made_block_by_block(small: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def names(self: object, ids: list[int]) -> list[str]:
        asked.append(len(ids))
        return [f"cloud {id}" for id in ids]

    monkeypatch.setattr("tests.helpers.small.Clouds.item_names_of", names)
    monkeypatch.setattr("metric_module.tasks.embedding.shards.BLOCK_ROWS", 30)
    found = rows(small)
    assert asked == [30, 30, 12] and BLOCK_ROWS == 65536
    assert [name for name, *_ in found] == [f"cloud {id}" for id in range(72)]
