"""Tests of IDX files: reading, split by class, and messages about damaged files."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import IDXDataModule
from datamodules.idx import read_idx
from metric_module import UserError


def write(path: Path, array: np.ndarray[Any, Any], kind: int = 8) -> None:
    """Write an IDX file of bytes."""
    head = bytes([0, 0, kind, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    content = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write ten classes, six images each in train and four in t10k; pixels encode class and position."""
    for name, each, suffix in (("train", 6, ".gz"), ("t10k", 4, "")):
        labels = np.arange(10 * each) % 10
        images = np.broadcast_to((20 * labels + 5)[:, None, None], (10 * each, 8, 8)).copy()
        images[:, 0, 0] = np.arange(10 * each)
        write(tmp_path / f"{name}-images-idx3-ubyte{suffix}", images)
        write(tmp_path / f"{name}-labels-idx1-ubyte{suffix}", labels)
    return tmp_path


def module(root: Path, **settings: Any) -> IDXDataModule:
    given = {"classes_per_batch": 3, "samples_per_class": 2, "image_size": 8, "augment": None}
    return IDXDataModule(root=str(root), **{**given, **settings})


def test_images_labels_and_classes(root: Path) -> None:
    data = module(root, fractions=(0.5, 0.2, 0.3), eval_per_class=4)
    data.prepare_data()
    data.setup("fit")
    samples = data.samples
    assert [len(ids) for ids in samples.splits.values()] == [50, 8, 12]
    assert data.classes_trained_on("test") == data.classes_trained_on("val") == 0
    assert samples.splits["test"].max() < 40, "the first of each class are those of t10k"
    images = samples.fetch(torch.arange(100))
    assert images.shape == (100, 1, 8, 8) and images.dtype == torch.float32
    expected = (20 * samples.labels + 5) / 127.5 - 1
    assert torch.allclose(images[:, 0, 4, 4], expected)
    assert images[:40, 0, 0, 0].add(1).mul(127.5).round().tolist() == list(range(40))
    assert samples.class_names[3] == "3"


def test_sizes_channels_names_and_pictures(root: Path) -> None:
    names = [f"class {letter}" for letter in "abcdefghij"]
    data = module(root, image_size=4, channels=3, class_names=names)
    assert data.samples.fetch(torch.tensor([5])).shape == (1, 3, 4, 4)
    assert data.class_names_of([5]) == ["class f"]
    (picture,) = module(root).show([5])
    assert isinstance(picture, Image.Image) and picture.getpixel((4, 4)) == (105, 105, 105)
    batch = next(iter(module(root, class_turns=1.0).train_dataloader()))
    assert torch.equal(module(root, class_turns=1.0).augment_batch(batch, 0).labels // 8, batch.labels)


def test_a_prefix_chooses_files_and_labels_may_start_at_1(root: Path) -> None:
    write(root / "letters-train-images-idx3-ubyte", np.zeros((20, 5, 5)))
    write(root / "letters-train-labels-idx1-ubyte", np.arange(20) % 10 + 1)
    data = module(root, prefix="letters-")
    assert data.samples.class_names == [str(label) for label in range(1, 11)]
    with pytest.raises(
        UserError, match=r"expected square images of one size, got \[\(5, 5\), \(8, 8\)\]; datamodule.prefix"
    ):
        module(root).setup("fit")


def test_the_test_files_are_the_test_of_a_closed_set(root: Path) -> None:
    data = module(root, split_by="file", val_fraction=0.3, eval_per_class=2)
    samples, splits = data.samples, data.samples.splits
    assert splits["test"].tolist() == list(range(40)), "the t10k files, whole"
    assert torch.equal(torch.cat([splits["train"], splits["val"]]).sort().values, torch.arange(40, 100))
    counts = {split: samples.labels[ids].bincount().tolist() for split, ids in splits.items()}
    assert counts == {"train": [4] * 10, "val": [2] * 10, "test": [4] * 10}
    assert data.classes_trained_on("test") == data.classes_in("test") == data.classes_in("val") == 10
    again, other = (module(root, split_by="file", val_fraction=0.3, split_seed=seed) for seed in (0, 1))
    assert torch.equal(again.samples.splits["val"], splits["val"])
    assert not torch.equal(other.samples.splits["val"], splits["val"])


def test_emnist_names_its_test_files_otherwise(root: Path) -> None:
    for kind in ("images-idx3", "labels-idx1"):
        (root / f"t10k-{kind}-ubyte").rename(root / f"emnist-test-{kind}-ubyte")
        (root / f"train-{kind}-ubyte.gz").rename(root / f"emnist-train-{kind}-ubyte.gz")
    assert module(root, split_by="file", val_fraction=0.3).samples.splits["test"].tolist() == list(range(40))


@pytest.mark.parametrize(("missing", "got"), [("t10k", "none for the test"), ("train", "no others")])
def test_a_closed_set_needs_files_of_both_kinds(root: Path, missing: str, got: str) -> None:
    for path in root.glob(f"{missing}-*"):
        path.unlink()
    message = rf"datamodule.split_by=file: .*: expected files \*t10k-images.* for the test and .*, got {got}$"
    with pytest.raises(UserError, match=message):
        module(root, split_by="file").setup("fit")
    embedded = module(root, split_by="file")
    embedded.accept_any_items()
    assert embedded.samples.splits == {}, "files to embed need no split"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split_by": "row"}, "datamodule.split_by: expected class or sample or file, got 'row'"),
        ({"split_by": "file", "val_fraction": 0.01}, "datamodule.val_fraction=0.01: takes 0 of a class of 6 samples"),
        ({"image_size": 0}, "image_size: expected an integer >= 1, got 0"),
        ({"channels": 2}, "datamodule.channels: expected 1 or 3, got 2"),
        ({"eval_per_class": 1}, "eval_per_class: expected an integer >= 2, got 1"),
        ({"class_turns": -1}, "expected 0 <= class_turns <= 1, got -1"),
        ({"class_names": ["a", "b"]}, "datamodule.class_names: expected a name for each label up to 9, got 2"),
        (
            {"prefix": "emnist-"},
            r"expected files emnist-\*images-idx3-ubyte or emnist-\*images-idx3-ubyte.gz, got none",
        ),
    ],
)
def test_bad_arguments(root: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        module(root, **settings).setup("fit")


def test_damaged_files(root: Path) -> None:
    packed, plain = root / "train-images-idx3-ubyte.gz", root / "t10k-images-idx3-ubyte"
    whole, content = packed.read_bytes(), plain.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz is damaged: Compressed file ended"):
        module(root).setup("fit")
    packed.write_bytes(whole)
    plain.write_bytes(content[:-10])
    with pytest.raises(
        UserError, match=r"t10k-images-idx3-ubyte is damaged: expected 40 x 8 x 8 bytes of content, got 2550"
    ):
        module(root).setup("fit")
    plain.write_bytes(b"\x00\x00\x0d\x03" + content[4:])
    message = r"t10k-images-idx3-ubyte is no IDX file of that kind: expected 00000803 first, got 00000d03"
    with pytest.raises(UserError, match=message):
        module(root).setup("fit")
    write(root / "t10k-labels-idx1-ubyte", np.arange(39))
    plain.write_bytes(content)
    with pytest.raises(UserError, match=r"40 images, but 39 labels in t10k-labels-idx1-ubyte"):
        module(root).setup("fit")
    (root / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match=r"no file .*/t10k-labels-idx1-ubyte"):
        module(root).setup("fit")
    with pytest.raises(UserError, match=r"datamodule.root: no such folder: .*nowhere"):
        module(root / "nowhere").setup("fit")


def test_an_empty_file_and_one_that_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "labels").write_bytes(b"")
    with pytest.raises(UserError, match=r"labels is no IDX file of that kind: expected 00000801 first, got $"):
        read_idx(tmp_path / "labels", 1)
    (tmp_path / "labels.gz").write_bytes(b"plain")
    with pytest.raises(UserError, match=r"labels.gz is damaged: Not a gzipped file"):
        read_idx(tmp_path / "labels.gz", 1)
