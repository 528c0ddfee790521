"""Tests of data that is only embedded: every given item, labelled or not, without what training requires."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules import (
    ArraysDataModule,
    HuggingFaceDataModule,
    ImageFolderDataModule,
    ManifestDataModule,
    PKDataModule,
)
from metric_module import UserError


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 6, 3)).astype(np.uint8)).save(path)


def folder(root: Path, *names: str, **settings: Any) -> ImageFolderDataModule:
    """Write a picture under each name, all different, and read the folder."""
    for seed, name in enumerate(names):
        picture(root / name, seed)
    return ImageFolderDataModule(
        root=str(root), image_size=4, cache_dir=str(root.parent / "cache"), num_workers=0, **settings
    )


def embedded(data: PKDataModule) -> list[tuple[int, str]]:
    """Check the data as the task does, and return id and class name of every item that it loads."""
    data.accept_any_items()
    data.prepare_data()
    data.setup("predict")
    ids = [id for batch in data.eval_dataloader("all") for id in batch.index.tolist()]
    return [(id, data.class_names_of([id])[0]) for id in ids]


FOLDERS: list[tuple[list[str], list[str]]] = [
    (["a.png", "b.png"], ["", ""]),
    (["cats/a.png", "cats/b.png"], ["cats", "cats"]),
    (["cats/a.png", "dogs/b.png", "c.png", "dogs/more/d.png"], ["cats", "dogs", "", ""]),
    (["test/cats/a.png"], [""]),
]


@pytest.mark.filterwarnings("ignore:data. 1 images in subfolders", "ignore:data. 1 files are no images")
@pytest.mark.parametrize(("files", "names"), FOLDERS)
def test_any_folder(files: list[str], names: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError):
        folder(tmp_path / "images", *files).samples  # noqa: B018
    data = folder(tmp_path / "images", *files)
    assert embedded(data) == [*enumerate(names)]
    assert not data.samples.splits


def test_a_folder_of_training_keeps_its_ids_classes_and_splits(tmp_path: Path) -> None:
    files = [f"class {c}/{n}.png" for c in range(6) for n in range(2)]
    trained = folder(tmp_path / "images", *files, fold=1, folds=2).samples
    picture(tmp_path / "images/class 3/deeper/more.png", 99)
    picture(tmp_path / "images/loose.png", 98)
    data = folder(tmp_path / "images", fold=1, folds=2)
    assert [name for _, name in embedded(data)] == [trained.class_names[label] for label in trained.labels] + ["", ""]
    assert {name: ids.tolist() for name, ids in data.samples.splits.items()} == {
        name: ids.tolist() for name, ids in trained.splits.items()
    }


def test_single_samples_and_duplicates_are_no_problem_and_nothing_is_left_out(tmp_path: Path) -> None:
    data = folder(tmp_path / "images", *(f"{c}/a.png" for c in "abcdef"), duplicates="drop")
    (tmp_path / "images/a/b.png").write_bytes((tmp_path / "images/b/a.png").read_bytes())
    assert len(embedded(data)) == 7
    (tmp_path / "images/c/a.png").write_bytes(b"no image")
    broken = folder(tmp_path / "images")
    broken.accept_any_items()
    with pytest.raises(
        UserError, match=r"^data: 1 files that cannot be read: \S+/c/a.png \(cannot identify image file\)$"
    ):
        broken.prepare_data()


def table(tmp_path: Path, header: str, *rows: str) -> str:
    (tmp_path / "table.csv").write_text("\n".join([header, *rows]) + "\n")
    return str(tmp_path / "table.csv")


def test_a_table_without_labels(tmp_path: Path) -> None:
    plain = table(tmp_path, "text,part", "one,test", "one,test")
    settings: dict[str, Any] = {"text": "text", "num_workers": 0}
    assert embedded(ManifestDataModule(table=plain, split="part", **settings)) == [(0, ""), (1, "")]
    assert embedded(ManifestDataModule(table=plain, label=None, **settings)) == [(0, ""), (1, "")]
    with pytest.raises(UserError, match="has no column 'kind', only text, part"):
        embedded(ManifestDataModule(table=plain, label="kind", **settings))
    with pytest.raises(UserError, match=r"datamodule.label: expected the column of classes, got null; only task=embed"):
        ManifestDataModule(table=plain, label=None, **settings).setup("fit")
    with pytest.raises(UserError, match="has no column 'label', only text, part"):
        ManifestDataModule(table=plain, **settings).setup("fit")
    some = table(tmp_path, "text,label", "one,b", "two,", "three,a")
    assert embedded(ManifestDataModule(table=some, **settings)) == [(0, "b"), (1, ""), (2, "a")]


def test_arrays_without_labels() -> None:
    arrays = {"inputs": np.ones((3, 2))}
    assert embedded(ArraysDataModule(arrays=arrays, num_workers=0)) == [(0, ""), (1, ""), (2, "")]
    with pytest.raises(UserError, match=r"expected arrays inputs and labels, .*, got no labels"):
        ArraysDataModule(arrays=arrays, num_workers=0).setup("fit")


def test_a_hugging_face_data_set_without_labels(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["one", "two"]}).save_to_disk(tmp_path / "saved")
    path = str(tmp_path / "saved")
    settings: dict[str, Any] = {"input": "text", "num_workers": 0}
    assert embedded(HuggingFaceDataModule(path=path, **settings)) == [(0, ""), (1, "")]
    with pytest.raises(UserError, match=r"datamodule.label: expected the column of classes, got null"):
        HuggingFaceDataModule(path=path, label=None, **settings).setup("fit")
    feature = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["x", "y"])})
    labelled = datasets.Dataset.from_dict({"text": ["one", "two"], "label": [-1, 1]}, features=feature)
    labelled.save_to_disk(tmp_path / "labelled")
    assert embedded(HuggingFaceDataModule(path=str(tmp_path / "labelled"), **settings)) == [(0, ""), (1, "y")]


def test_few_classes_name_the_way_out(tmp_path: Path) -> None:
    files = [f"{kind}/{n}.png" for kind in ("cats", "dogs") for n in range(10)]
    with pytest.raises(UserError, match=r"^splitting 2 classes by .*: 2 train, 0 val, 0 test; change datamodule.f"):
        folder(tmp_path / "images", *files).setup("fit")
    data = folder(tmp_path / "images", split_by="sample")
    data.prepare_data()
    data.setup("fit")
    sizes = {split: data.samples.labels[ids].bincount().tolist() for split, ids in data.samples.splits.items()}
    assert sizes == {"train": [6, 6], "val": [2, 2], "test": [2, 2]}
    assert data.classes_trained_on("val") == 2
    with pytest.raises(UserError, match=r"datamodule.split_by: expected class or sample, got 'row'"):
        folder(tmp_path / "images", split_by="row")
