"""Tests of data sets of Hugging Face on disk: images, texts, vectors, and their own or new splits."""

from __future__ import annotations

import builtins
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import HuggingFaceDataModule
from metric_module.errors import UserError

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
NAMES = [f"kind {number}" for number in range(10)]


def png(value: int) -> bytes:
    """Encode a small red picture as the content of a file."""
    file = io.BytesIO()
    Image.new("RGB", (9, 12), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def columns(first: int, last: int, **changes: Any) -> dict[str, Any]:
    """Make rows of ten classes, four of each."""
    rows = range(first, last)
    return {
        "image": [{"bytes": png(6 * row), "path": None} for row in rows],
        "text": [f"text {row}" for row in rows],
        "vector": [[float(row), -1.0] for row in rows],
        "label": [row // 4 for row in rows],
        "word": [f"w{row // 4}" for row in rows],
    } | changes


def save(folder: Path, cuts: dict[str, tuple[int, int]] | None = None, **changes: Any) -> str:
    """Save a data set, or a dict of its splits."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.Value("string"),
            "vector": datasets.Sequence(datasets.Value("float64")),
            "label": datasets.ClassLabel(names=NAMES),
            "word": datasets.Value("string"),
        }
    )
    if cuts is None:
        made = datasets.Dataset.from_dict(columns(0, 40, **changes), features=features)
    else:
        parts = {name: datasets.Dataset.from_dict(columns(*cut), features=features) for name, cut in cuts.items()}
        made = datasets.DatasetDict(parts)
    made.save_to_disk(str(folder / "saved"))
    return str(folder / "saved")


def module(path: str, **settings: Any) -> HuggingFaceDataModule:
    given = {"input": "text", "classes_per_batch": 2, "samples_per_class": 2, "image_size": 8, "num_workers": 0}
    return HuggingFaceDataModule(path=path, **{**given, **settings})


def test_images_texts_and_vectors(tmp_path: Path) -> None:
    path = save(tmp_path)
    data = module(path, input="image")
    data.prepare_data()
    batch = next(iter(data.train_dataloader()))
    reds = ((batch.inputs[:, 0].mean(dim=(1, 2)) + 1) * 127.5 / 6).round().long()
    assert torch.equal(reds, batch.index) and data.augment is not None
    assert data.turned_share == 0.6
    assert torch.equal(batch.labels, batch.index // 4)
    assert data.class_names_of([0, 39]) == ["kind 0", "kind 9"]
    assert isinstance(data.show([0])[0], Image.Image)
    data = module(path, label="word", group="label")
    data.prepare_data()
    batch = next(iter(data.val_dataloader()))
    assert batch.inputs == [f"text {row}" for row in batch.index.tolist()] and data.augment is None
    assert data.turned_share == 0
    assert data.class_names_of([5]) == ["w1"]
    assert data.groups is not None and torch.equal(data.groups, torch.arange(40) // 4)
    batch = next(iter(module(path, input="vector").test_dataloader()))
    assert torch.equal(batch.inputs, torch.stack([batch.index.float(), -torch.ones(len(batch.index))], dim=1))


def test_its_own_splits(tmp_path: Path) -> None:
    path = save(tmp_path, {"train": (0, 24), "validation": (24, 32), "test": (32, 40)})
    for settings in ({}, {"class_disjoint": False}):
        splits = module(path, **settings).samples.splits
        assert {name: (int(ids[0]), int(ids[-1])) for name, ids in splits.items()} == {
            "train": (0, 23),
            "val": (24, 31),
            "test": (32, 39),
        }


def test_splits_that_share_classes(tmp_path: Path) -> None:
    path = save(tmp_path, {"test": (26, 40), "train": (0, 16), "validation": (14, 28)})
    data = module(path)
    with pytest.warns(UserWarning, match=r"saved shares 2 of 10 classes among its splits; samples are split anew"):
        data.setup("fit")
    assert data.classes_trained_on("test") == data.classes_trained_on("val") == 0
    assert sum(map(len, data.samples.splits.values())) == 44
    own = module(path, class_disjoint=False)
    assert {name: ids.tolist() for name, ids in own.samples.splits.items()} == {
        "train": list(range(14, 30)),
        "val": list(range(30, 44)),
        "test": list(range(14)),
    }
    texts = [f"text {row}" for row in [*range(26, 40), *range(16), *range(14, 28)]]
    assert own.samples.fetch(torch.arange(44)) == texts


def labelled(folder: Path, kinds: dict[str, Any], labels: dict[str, list[Any]]) -> str:
    """Save splits with different types of labels."""
    made = datasets.DatasetDict()
    for split, kind in kinds.items():
        features = datasets.Features({"text": datasets.Value("string"), "label": kind})
        texts = [f"{split} {row}" for row in range(len(labels[split]))]
        made[split] = datasets.Dataset.from_dict({"text": texts, "label": labels[split]}, features=features)
    made.save_to_disk(str(folder / "labelled"))
    return str(folder / "labelled")


def test_classes_go_by_the_names_of_their_own_split(tmp_path: Path) -> None:
    names = {"train": ["cat", "dog"], "validation": ["ape", "cow"], "test": ["dog", "bee"]}
    kinds = {split: datasets.ClassLabel(names=own) for split, own in names.items()}
    path = labelled(tmp_path, kinds, {split: [0, 1, 1] for split in names})
    data = module(path, class_disjoint=False, group="label")
    assert data.class_names_of(range(9)) == ["cat", "dog", "dog", "ape", "cow", "cow", "dog", "bee", "bee"]
    assert data.groups is not None and torch.equal(data.groups, data.samples.labels)
    with pytest.warns(UserWarning, match="shares 1 of 5 classes among its splits"):
        module(path).setup("fit")
    path = labelled(tmp_path, kinds, {"train": [0, 1], "validation": [0, -1], "test": [0, 1]})
    with pytest.raises(UserError, match=r"labelled: column 'label': no value in 1 rows \(from 0\): 3$"):
        module(path).setup("fit")


def test_labels_of_two_types(tmp_path: Path) -> None:
    kinds = {"train": datasets.Value("int64"), "test": datasets.Value("string")}
    path = labelled(tmp_path, kinds, {"train": [0, 1], "test": ["a", "b"]})
    reported = "labelled: column 'label': expected one type in all splits, got int64 in train, string in test$"
    with pytest.raises(UserError, match=reported):
        module(path).setup("fit")


def test_no_rows(tmp_path: Path) -> None:
    path = labelled(tmp_path, {"train": datasets.Value("int64")}, {"train": []})
    with pytest.raises(UserError, match=r"^datamodule.path: .*labelled has no rows, or a split without any$"):
        module(path).setup("fit")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "train.csv").write_text("text,label\n")
    with pytest.raises(UserError, match=r"^datamodule.path: cannot read .*files \(.* no data!\)$"):
        module(str(tmp_path / "files")).setup("fit")


def test_splits_that_are_missing(tmp_path: Path) -> None:
    path = save(tmp_path, {"train": (0, 32), "test": (32, 40)})
    with pytest.warns(UserWarning, match=r"saved has no val; samples are split anew by class"):
        module(path).setup("fit")
    with pytest.raises(UserError, match=r"class_disjoint=false: .*saved has no val, only train, test"):
        module(path, class_disjoint=False).setup("fit")


def test_rows_that_were_chosen_and_shuffled(tmp_path: Path) -> None:
    made = datasets.load_from_disk(save(tmp_path)).shuffle(seed=1)
    made.save_to_disk(str(tmp_path / "shuffled"))
    samples = module(str(tmp_path / "shuffled")).samples
    found = samples.fetch(torch.arange(40))
    assert found == made["text"][:] and found != [f"text {row}" for row in range(40)]
    assert samples.labels.tolist() == made["label"][:]


def test_the_preflight(tmp_path: Path) -> None:
    images = columns(0, 40)["image"]
    images[3] = {"bytes": b"no image", "path": None}
    path = save(tmp_path, image=images)
    splits = module(path).samples.splits
    first, second = int(splits["train"][0]), int(splits["val"][0])
    assert 3 not in {first, second}
    images[second] = images[first]
    (tmp_path / "more").mkdir()
    data = module(save(tmp_path / "more", image=images), input="image")
    with pytest.raises(UserError) as error:
        data.prepare_data()
    reported = str(error.value)
    assert reported.startswith("data: 1 images cannot be read: row 3 (cannot identify image file")
    names = data.class_names_of([first, second])
    same = sorted([f"row {first} ({names[0]}, train)", f"row {second} ({names[1]}, val)"])
    assert reported.endswith(f": {' = '.join(same)}")
    assert data.show([3]) == ["row 3"]


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"label": "kind"}, {}, "saved: train has no column 'kind', only image, text, vector, label, word"),
        ({"label": "word"}, {"word": [*"a" * 39, ""]}, r"column 'word': an empty label in 1 rows \(from 0\): 39$"),
        ({"input": "label"}, {}, "column 'label': expected lists of numbers, got int64"),
        ({"label": "vector"}, {}, "column 'vector': expected strings or integers, got list"),
        ({}, {"text": [None, *"a" * 39]}, r"column 'text': no value in 1 rows \(from 0\): 0"),
        (
            {},
            {"label": [-1, -1, *[9] * 38]},
            r"saved: column 'label': 2 samples have no class \(-1\)",
        ),
    ],
)
def test_columns_of_another_kind(
    tmp_path: Path, settings: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        module(save(tmp_path, **changes), **settings).setup("fit")


def test_no_data_set_and_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"datamodule.path: cannot read .*nowhere \(") as error:
        module(str(tmp_path / "nowhere")).setup("fit")
    assert "\n" not in str(error.value)
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        """Pretend that this package is missing."""
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"needs: pip install 'lightning-triplets\[huggingface\]'"):
        module(str(tmp_path)).setup("fit")


def test_a_folder_of_files(tmp_path: Path) -> None:
    rows = "\n".join(f"text {row},w{row // 4}" for row in range(40))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "train.csv").write_text(f"text,word\n{rows}\n")
    data = module(str(tmp_path / "files"), label="word")
    assert np.unique(data.samples.labels).size == 10
