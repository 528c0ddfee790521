"""Tests of arrays from files and from memory, and of mistakes in them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from datamodules import ArraysDataModule
from datamodules.arrays import read_arrays
from metric_module.errors import UserError
from tests.helpers.command_line import command_in

LABELS = np.array([-3, 2**53, 2**53 + 1, 5, 7, 9, 11, 13, 15, 17]).repeat(4)
INPUTS = np.random.default_rng(0).normal(size=(40, 6))
SPLIT = np.arange(40) // 4 % 3


def arrays(**changes: Any) -> dict[str, Any]:
    """Make ten classes of four rows."""
    return {"inputs": INPUTS, "labels": LABELS} | changes


def module(**changes: Any) -> ArraysDataModule:
    return ArraysDataModule(2, 2, arrays=arrays(**changes))


def test_memory_and_files_give_the_same(tmp_path: Path) -> None:
    more = {"split": SPLIT, "groups": np.arange(40) % 2, "queries": np.arange(40) % 3 == 0}
    np.savez(tmp_path / "a.npz", **arrays(**more))
    tensors = {name: torch.as_tensor(array) for name, array in arrays(**more).items()}
    save_file(tensors, tmp_path / "a.safetensors")
    words = np.array(["train", "val", "test"])[SPLIT]
    np.savez(tmp_path / "b.npz", **arrays(**more | {"split": words}))
    made = [module(**more), ArraysDataModule(2, 2, arrays=tensors)]
    made += [ArraysDataModule(2, 2, path=str(tmp_path / name)) for name in ("a.npz", "a.safetensors", "b.npz")]
    for data in made:
        data.prepare_data()
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert torch.equal(batch.inputs, torch.from_numpy(INPUTS).float()[batch.index])
        samples = data.samples
        assert [int(samples.class_name(label)) for label in samples.labels.tolist()] == LABELS.tolist()
        assert {name: ids.tolist() for name, ids in samples.splits.items()} == {
            name: np.flatnonzero(number == SPLIT).tolist() for number, name in enumerate(("train", "val", "test"))
        }
        assert samples.groups is not None and torch.equal(samples.groups, torch.arange(40) % 2)
        assert samples.queries is not None and torch.equal(samples.queries, torch.arange(40) % 3 == 0)


def test_kinds_of_inputs() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 3, 4, 4), dtype=np.uint8)
    ids = torch.tensor([3, 1])
    data = module(inputs=pixels)
    expected = torch.from_numpy(pixels[[3, 1]] / 127.5 - 1).float()
    torch.testing.assert_close(data.samples.fetch(ids), expected)
    (picture,) = data.show([3])
    assert isinstance(picture, Image.Image)
    assert np.array_equal(np.array(picture), pixels[3].transpose(1, 2, 0))
    tokens = np.arange(80).reshape(40, 2)
    assert module(inputs=tokens).samples.fetch(ids).tolist() == [[6, 7], [2, 3]]
    assert module(inputs=INPUTS.astype(np.float16)).samples.fetch(ids).dtype == torch.float32
    assert module(inputs=np.ones((40, 9))).show([0]) == ["1 1 1 1 1 1 1 1 ... (9 numbers)"]
    assert module(inputs=INPUTS.tolist(), labels=LABELS.tolist()).samples.fetch(ids).shape == (2, 6)


def test_bools_become_floats() -> None:
    inputs = module(inputs=INPUTS > 0).samples.fetch(torch.tensor([3]))
    assert inputs.dtype == torch.float32
    assert torch.equal(inputs, torch.from_numpy(INPUTS[[3]] > 0).float())


def test_the_other_order_of_bytes(tmp_path: Path) -> None:
    swapped: dict[str, Any] = {
        "inputs": INPUTS.astype(">f4"),
        "labels": LABELS.astype(">i8"),
        "split": SPLIT.astype(">i4"),
        "groups": np.array([f"camera {row % 2}" for row in range(40)]).astype(">U8"),
    }
    np.savez(tmp_path / "a.npz", **swapped)
    one, other = ArraysDataModule(path=str(tmp_path / "a.npz")).samples, module(split=SPLIT).samples
    ids = torch.arange(40)
    assert torch.equal(one.fetch(ids), other.fetch(ids))
    assert torch.equal(one.labels, other.labels) and list(one.class_names) == list(other.class_names)
    assert one.groups is not None and torch.equal(one.groups, ids % 2)


def test_class_names() -> None:
    names = np.array([f"bird {number}" for number in range(12)])
    samples = module(labels=np.arange(10).repeat(4), class_names=names).samples
    assert [samples.class_name(label) for label in (0, 9)] == ["bird 0", "bird 9"]
    samples = module(labels=np.array(list("jihgfedcba")).repeat(4)).samples
    assert samples.class_name(int(samples.labels[0])) == "j"


def test_what_is_not_finite_is_named() -> None:
    inputs = INPUTS.copy()
    inputs[[7, 19, 31], [2, 0, 3]] = np.nan, -1e39, np.inf
    reported = r"^data: 3 samples hold NaN, infinity or more than float32 can: sample 7, sample 19, sample 31$"
    with pytest.raises(UserError, match=reported):
        module(inputs=inputs).prepare_data()
    module(inputs=np.arange(80).reshape(40, 2)).prepare_data()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": LABELS[:39]}, r"labels: expected shape \(40,\), as many as inputs, got \(39,\)"),
        ({"groups": LABELS[:, None]}, r"groups: expected shape \(40,\), as many as inputs, got \(40, 1\)"),
        ({"inputs": LABELS}, r"inputs: expected shape \(N, ...\) of at least two dimensions, N > 0, got \(40,\)"),
        ({"inputs": np.array([["a"]] * 40)}, "inputs: expected numbers, got <U1"),
        ({"inputs": INPUTS.astype(np.uint16)}, "inputs: expected floats, bool, uint8, int8, int16, .*, got uint16$"),
        ({"inputs": INPUTS + 1j}, "inputs: expected floats, bool, .*, got complex128$"),
        ({"labels": ["", *"a" * 38, ""]}, r"labels: an empty label in 2 rows \(from 0\): 0, 39$"),
        ({"labels": LABELS / 2}, "labels: expected strings or integers, got double"),
        ({"split": SPLIT + 1}, "split: expected train, val, test or 0, 1, 2, got 1, 2, 3"),
        ({"split": np.zeros(40, int)}, "split: no row of val, test"),
        ({"split": ["dev"] * 40}, "split: expected train, val, test, got 'dev'"),
        ({"queries": LABELS}, "expected queries as a bool tensor"),
        ({"class_names": ["a", "b"]}, f"class_names: expected labels from 0 to 1, got -3 to {2**53 + 1}"),
        ({"label": LABELS}, "arrays: expected arrays inputs and labels, perhaps split, groups, .*, got label$"),
    ],
)
def test_arrays_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        module(**changes).setup("fit")
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "object.npz", **arrays(labels=np.array(LABELS, dtype=object)))
    np.savez(tmp_path / "few.npz", labels=LABELS)
    np.save(tmp_path / "one.npy", INPUTS)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    for name in ("broken.npz", "broken.safetensors", "table.csv"):
        (tmp_path / name).write_bytes(b"no array")
    for name, message in (
        ("none.npz", "datamodule.path: no such file: .*none.npz"),
        ("table.csv", "datamodule.path: expected a file of .npz, .safetensors, got .*table.csv"),
        ("broken.npz", r"datamodule.path: cannot read .*broken.npz \("),
        ("broken.safetensors", r"datamodule.path: cannot read .*broken.safetensors \("),
        ("object.npz", r"cannot read .*object.npz \(Object arrays cannot be loaded when allow_pickle=False\)"),
        (
            "one.npz",
            r"cannot read .*one.npz \(a single array without a name, as np.save writes; expected a file of np.savez\)",
        ),
        ("few.npz", "few.npz: expected arrays inputs and labels, .*, got no inputs$"),
    ):
        with pytest.raises(UserError, match=message) as error:
            ArraysDataModule(path=str(tmp_path / name)).setup("fit")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [{}, {"path": "a.npz", "arrays": {}}])
def test_one_of_two(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"datamodule: expected one of path \(a file\) and arrays \(by name\)"):
        ArraysDataModule(**given)


def test_a_file_is_trained_and_evaluated_by_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", **arrays())
    command = command_in(tmp_path, monkeypatch)
    words = ["datamodule=arrays", "datamodule.path=a.npz", "encoder=mlp", "encoder.in_features=6", "encoder.hidden=[8]"]
    small = ["datamodule.classes_per_batch=4", "trainer.accelerator=cpu", "trainer.max_steps=2", "logger=csv"]
    assert command(*words, *small) == 0
    (run,) = (tmp_path / "runs" / "train").iterdir()
    assert "recall_at_1" in json.loads((run / "metrics.json").read_text())["test"]


def test_labels_that_differ_after_a_nul_are_different_classes(tmp_path: Path) -> None:
    labels = np.array(["a\0b", "a\0c"] * 10 + [f"class {n}" for n in range(8) for _ in range(2)])
    np.savez(tmp_path / "a.npz", inputs=np.random.default_rng(0).normal(size=(36, 2)), labels=labels)
    samples = ArraysDataModule(path=str(tmp_path / "a.npz")).samples
    assert len(samples.class_names) == 10 and list(samples.class_names[:2]) == ["a\0b", "a\0c"]
    given = {"inputs": np.ones((10, 2)), "labels": ["a", "a\0", *"bcdefghi"]}  # numpy would drop the last NUL
    assert len(ArraysDataModule(arrays=given).samples.class_names) == 10


def test_a_header_that_claims_more_than_any_memory(tmp_path: Path) -> None:
    """64 TB, in an array of a few bytes."""
    head = "{'descr': '<f8', 'fortran_order': False, 'shape': (8000000000000,), }"
    content = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + head.ljust(117).encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("inputs.npy", content)
    with pytest.raises(UserError, match=r"^datamodule.path: cannot read \S+a.npz \(.*\)$"):
        read_arrays(str(tmp_path / "a.npz"))


def transforms() -> list[Any]:
    from torchvision import transforms as first
    from torchvision.transforms import v2

    return [
        v2.Compose([v2.RandomHorizontalFlip()]),
        first.Compose([first.RandomHorizontalFlip()]),
        first.RandomHorizontalFlip(),
    ]


@pytest.mark.parametrize("place", range(3))
def test_a_transform_of_torchvision_is_refused_with_the_way_out(place: int) -> None:
    arrays = {"inputs": np.random.default_rng(0).random((40, 3, 4, 4)), "labels": np.arange(40) // 4}
    with pytest.raises(UserError, match=r"^datamodule.augment: expected a function of inputs and keys, .*docs/data"):
        augmented(arrays, transforms()[place])


def augmented(arrays: dict[str, Any], augment: Any) -> Any:
    """Make and augment the first batch."""
    data = ArraysDataModule(4, 2, arrays=arrays, augment=augment)
    return data.augment_batch(next(iter(data.train_dataloader())), epoch=0)


@pytest.mark.parametrize(("changes", "share"), [({}, 0.6), ({"class_turns": 0.25}, 0.25), ({"class_turns": 0.0}, 0.0)])
def test_only_square_images_of_bytes_are_augmented_and_turned_by_default(
    changes: dict[str, float], share: float
) -> None:
    labels = np.arange(10).repeat(4)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), np.uint8)
    data = ArraysDataModule(6, 2, arrays={"inputs": pixels, "labels": labels}, **changes)  # type: ignore[arg-type]
    batch = next(iter(data.train_dataloader()))
    after = data.augment_batch(batch, epoch=0)
    assert data.turned_share == share and not torch.equal(after.inputs, batch.inputs)
    assert torch.equal(after.labels, batch.labels) == (share == 0)
    for inputs in (pixels[:, :, :4], pixels / 255, pixels.reshape(40, -1) / 255):
        other = ArraysDataModule(6, 2, arrays={"inputs": inputs, "labels": labels})
        batch = next(iter(other.train_dataloader()))
        assert other.turned_share == 0 and other.augment_batch(batch, epoch=0) is batch
