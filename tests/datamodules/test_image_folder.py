"""Tests of a folder of images: reading, split, preflight, and replacement of bad samples in training."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import ImageFolderDataModule, SampleDataset
from datamodules.sampling.dataset import BadSampleError, Samples
from datamodules.sources.preflight import inspect_images
from metric_module import UserError
from metric_module.preprocessing import ImageInput
from tests.helpers.command_line import Command, command_in


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "images")


def make(root: Path, classes: int = 10, each: int = 4) -> Path:
    """Write ten classes of four images, each in its own colour with a little noise."""
    random = np.random.default_rng(0)
    for label in range(classes):
        folder = root / f"class_{label}"
        folder.mkdir(parents=True)
        colour = random.integers(40, 216, 3)
        for number in range(each):
            pixels = colour + random.integers(-20, 20, (20, 24, 3))
            suffix = "jpg" if number % 2 else "png"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.{suffix}")
    return root


def module(root: Path, **settings: Any) -> ImageFolderDataModule:
    given: dict[str, Any] = {"classes_per_batch": 4, "samples_per_class": 2, "image_size": 8, "num_workers": 0}
    given |= {"cache_dir": str(root.parent / "cache")}
    return ImageFolderDataModule(root=str(root), **{**given, **settings})


def test_classes_are_split_and_images_are_read(root: Path) -> None:
    data = module(root)
    data.prepare_data()
    data.setup("fit")
    assert [len(rows) for rows in data.samples.splits.values()] == [24, 8, 8]
    assert data.samples.class_names == [f"class_{label}" for label in range(10)]
    batch = next(iter(data.train_dataloader()))
    assert batch.inputs.shape == (8, 3, 8, 8)
    assert batch.inputs.dtype == torch.float32
    for inputs, label in zip(batch.inputs, batch.labels, strict=True):
        pixels = ImageInput(8).pixels(str(root / f"class_{int(label)}" / "0.png")) / 127.5 - 1
        assert abs(float(inputs.mean()) - pixels.mean()) < 0.1


def test_folds(root: Path) -> None:
    plain = module(root).samples
    held = [module(root, fold=fold, folds=2).samples.splits for fold in range(2)]
    assert all(torch.equal(splits["test"], plain.splits["test"]) for splits in held)
    assert torch.equal(held[0]["train"], held[1]["val"]) and torch.equal(held[0]["val"], held[1]["train"])
    assert len(held[0]["val"]) == 16


def test_the_middle_square_is_cut_out(tmp_path: Path) -> None:
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, 10:20] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert ImageInput(5).pixels(str(tmp_path / "a.png")).min() == 255
    Image.fromarray(pixels[..., 0]).convert("P").save(tmp_path / "b.gif")
    assert ImageInput(5).pixels(str(tmp_path / "b.gif")).shape == (5, 5, 3)


def test_folders_that_are_split_already(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        make(tmp_path / "images" / split, classes=4)
        for folder in (tmp_path / "images" / split).iterdir():
            folder.rename(folder.with_name(f"{number}_{folder.name}"))
    data = module(tmp_path / "images", preflight=False)
    assert {name: len(rows) for name, rows in data.samples.splits.items()} == {"train": 16, "val": 16, "test": 16}
    assert len(data.samples.class_names) == 12
    (tmp_path / "images/val").rename(tmp_path / "images/valid")
    with pytest.raises(UserError, match="expected train, val and test, or a folder for each class; missing: val"):
        module(tmp_path / "images").setup("fit")


def test_the_preflight_lists_everything_that_is_wrong(root: Path) -> None:
    samples = module(root).samples

    def name(split: str, place: int) -> str:
        """Name a class of a split."""
        return str(samples.class_names[int(samples.labels[samples.splits[split][place]])])

    train, val, other = name("train", 0), name("val", 0), name("train", -1)
    (root / train / "0.png").write_bytes(b"")
    whole = (root / train / "1.jpg").read_bytes()
    (root / train / "1.jpg").write_bytes(whole[: len(whole) // 2])
    (root / train / "2.png").write_text("no image")
    (root / val / "9.png").write_bytes((root / other / "0.png").read_bytes())
    for file in ("1.jpg", "2.png", "3.jpg"):
        (root / other / file).unlink()
    with pytest.raises(UserError) as error:
        module(root).prepare_data()
    reported = str(error.value)
    assert reported.startswith("data: 3 files that cannot be read: ")
    for part in ("0.png (empty file)", "1.jpg (", "2.png (cannot identify image file)"):
        assert f"{root}/{train}/{part}" in reported
    same = sorted([f"{root}/{other}/0.png ({other}, train)", f"{root}/{val}/9.png ({val}, val)"])
    assert "; 1 contents have several labels (datamodule.duplicates=drop leaves them out, keep uses them): " in reported
    assert f": {' = '.join(same)}; " in reported
    assert f"1 training classes of a single sample (short_classes=drop leaves them out): {other}" in reported


def test_without_the_preflight_training_starts_and_breaks_off(root: Path) -> None:
    data = module(root, preflight=False)
    last = list(data.train_dataloader())[-1].index
    (root / data.samples.fetch.paths[int(last[0])]).write_bytes(b"")  # type: ignore[attr-defined]
    data = module(root, preflight=False)
    data.prepare_data()
    batches = iter(data.train_dataloader())
    next(batches)
    with pytest.raises(UserError, match="data: cannot read"):
        list(batches)


def test_a_class_of_one_sample_can_be_dropped(root: Path) -> None:
    data = module(root)
    name = data.samples.class_names[int(data.samples.labels[data.samples.splits["train"][0]])]
    for file in ("1.jpg", "2.png", "3.jpg"):
        (root / name / file).unlink()
    with pytest.raises(UserError, match=f"1 training classes of a single sample .*: {name}"):
        module(root).prepare_data()
    module(root, short_classes="drop").prepare_data()


def test_what_did_not_change_is_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    inner = inspect_images.__globals__["inspect_image"]

    def spy(path: str) -> Any:
        """Read an image and record its path."""
        read.append(path)
        return inner(path)

    monkeypatch.setattr("datamodules.sources.preflight.inspect_image", spy)
    module(root).prepare_data()
    assert len(read) == 40
    read.clear()
    module(root).prepare_data()
    assert read == []
    time.sleep(0.01)
    (root / "class_3/0.png").write_bytes(b"broken")
    for _ in range(2):
        with pytest.raises(UserError, match=r"1 files that cannot be read: .*class_3/0.png"):
            module(root).prepare_data()
    assert read == [str(root / "class_3/0.png")] * 2, "what is wrong is not remembered"
    (root.parent / "cache/files.sqlite").write_bytes(b"no database")
    read.clear()
    with pytest.raises(UserError, match="1 files that cannot be read"):
        module(root).prepare_data()
    assert len(read) == 40
    (root / "class_3/0.png").unlink()


def test_a_file_that_goes_bad_later(root: Path) -> None:
    data = module(root)
    data.prepare_data()
    data.setup("fit")
    victim = data.samples.splits["train"][5]
    path = Path(data.samples.fetch.paths[int(victim)])  # type: ignore[attr-defined]
    path.write_bytes(b"gone")
    with pytest.raises(UserError, match=f"data: cannot read {path} \\(cannot identify image file"):
        list(data.train_dataloader())


@pytest.mark.parametrize("workers", [0, 2])
def test_it_is_replaced_within_its_class(root: Path, workers: int) -> None:
    whole, data = module(root), module(root, on_bad_sample="replace", num_workers=workers)
    expected = [batch.index for batch in whole.train_dataloader()]
    broken = data.samples.splits["train"][[5, 9]]
    for row in broken.tolist():
        Path(data.samples.fetch.paths[row]).write_bytes(b"gone")  # type: ignore[attr-defined]
    runs = []
    for _ in range(2):
        data = module(root, on_bad_sample="replace", num_workers=workers)
        runs.append(list(data.train_dataloader()))
        assert data.replaced == 2
    seen = 0
    for batch, again, ids in zip(*runs, expected, strict=True):
        assert torch.equal(batch.index, again.index)
        assert torch.equal(batch.labels, data.samples.labels[ids]), "P x K stays"
        assert len(batch.index.unique()) == 8
        assert not torch.isin(batch.index, broken).any()
        kept = ~torch.isin(ids, broken)
        assert torch.equal(batch.index[kept], ids[kept])
        seen += int((~kept).sum())
    assert seen > 0
    with pytest.warns(
        UserWarning, match="data: 2 training samples could not be read and were replaced by others of their class"
    ):
        data.teardown("fit")


@pytest.mark.filterwarnings("ignore:data. 1 training samples could not be read")
def test_a_file_that_breaks_in_training_costs_no_figures(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break a training file once training has begun: evaluation afterwards does not check all files again."""
    load, broken = ImageFolderDataModule.train_dataloader, []

    def break_one(data: ImageFolderDataModule) -> Any:
        broken.append(Path(data.samples.fetch.paths[int(data.samples.splits["train"][3])]))  # type: ignore[attr-defined]
        broken[0].write_bytes(b"gone")
        return load(data)

    monkeypatch.setattr(ImageFolderDataModule, "train_dataloader", break_one)
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "cache"))
    words = ("datamodule=image_folder", f"datamodule.root={root}", "datamodule.on_bad_sample=replace", "report=false")
    small = ("encoder=mlp", "encoder.in_features=192", "encoder.hidden=[]", "datamodule.image_size=8")
    fast = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "datamodule.num_workers=0")
    assert command_in(root.parent, monkeypatch)(*words, *small, *fast, "hydra.run.dir=run") == 0
    assert broken[0].read_bytes() == b"gone"
    assert {"metrics.json", "encoder.safetensors"} <= {file.name for file in (root.parent / "run").iterdir()}


def test_the_preflight_runs_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, asked = module(root), []

    def find_problems() -> list[str]:
        asked.append(1)
        return []

    monkeypatch.setattr(data, "find_problems", find_problems)
    for _ in range(3):
        data.prepare_data()
    assert asked == [1]


def test_replacing_has_a_limit(root: Path) -> None:
    data = module(root, on_bad_sample="replace")
    rows = data.samples.splits["train"]
    paths = [Path(data.samples.fetch.paths[int(row)]) for row in rows]  # type: ignore[attr-defined]
    for path in paths[:4]:
        path.write_bytes(b"gone")
    one_class = SampleDataset(data.samples, rows[:4], replace=True)
    with pytest.raises(UserError, match=r"data: no sample of class \d+ can be read, the last: "):
        one_class.__getitems__([0, 1])
    for path in paths[:12]:
        path.write_bytes(b"gone")
    one_label = data.samples._replace(labels=torch.zeros_like(data.samples.labels))
    dataset = SampleDataset(one_label, rows, replace=True)
    with pytest.raises(UserError, match=r"data: more than 10 samples cannot be read, the last: "):
        dataset.__getitems__(list(range(12)))


@pytest.mark.parametrize(
    ("settings", "reported"),
    [
        ({"image_size": 0}, "image_size: expected an integer >= 1, got 0"),
        ({"on_bad_sample": "pray"}, "datamodule.on_bad_sample: expected error or replace, got 'pray'"),
    ],
)
def test_bad_arguments(tmp_path: Path, settings: dict[str, Any], reported: str) -> None:
    with pytest.raises(UserError, match=reported):
        module(tmp_path, **settings)


def test_no_folder_and_no_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"datamodule.root: no such folder: .*nowhere"):
        module(tmp_path / "nowhere").setup("fit")
    (tmp_path / "empty" / "class").mkdir(parents=True)
    with pytest.raises(UserError, match=r"empty: expected a folder of images for each class \(.jpg, .* got none"):
        module(tmp_path / "empty").setup("fit")


def test_ignored_folders_are_reported(root: Path) -> None:
    """Folders without images and images below class folders are reported; hidden ones are not."""
    for name in ("class_0/old", "class_1/more/yet more", "only deeper/one", "empty", "class_2/.hidden", ".hidden/one"):
        (root / name).mkdir(parents=True)
        (root / name / "a.png").write_bytes((root / "class_0/0.png").read_bytes())
    (root / "empty/a.png").rename(root / "empty/a.txt")
    with pytest.warns(UserWarning, match="^data: ") as warned:
        assert len(module(root).samples.class_names) == 10
    reported = [str(warning.message) for warning in warned]
    assert reported == [
        f"data: 2 folders contain no image directly, and are ignored: {root}/empty, {root}/only deeper",
        f"data: 3 images in subfolders of class folders are ignored: {root}/class_0/old/a.png, ...",
        f"data: 1 files are no images in a class folder, and are ignored (.txt): {root}/empty/a.txt",
    ]


def test_every_kind_of_image_that_pillow_reads_is_used(root: Path) -> None:
    for suffix in (".pgm", ".ppm", ".jfif", ".webp", ".tga", ".JPE"):
        Image.open(root / "class_0/0.png").convert("L").save(root / f"class_0/new{suffix}")
    (root / "class_0/notes.txt").write_text("no image")
    (root / "class_1/clip.mp4").write_bytes(b"no image")
    (root / "list").write_text("no image, and in no class folder")
    with pytest.warns(UserWarning, match="^data: 3 files are no images in a class folder, .*no extension") as warned:
        samples = module(root).samples
    assert len(warned) == 1 and len(samples.labels) == 46
    assert samples.fetch(torch.arange(4, 10)).shape == (6, 3, 8, 8)


@pytest.mark.parametrize("split", [False, True])
def test_classes_of_several_folders(root: Path, split: bool) -> None:
    places = [root.parent / "nested" / name for name in (("train", "val", "test") if split else ("",))]
    for number, place in enumerate(places):
        for name in ("a", "b", "c"):
            for character in ("1", "2"):
                (place / f"{number}{name}" / character).mkdir(parents=True)
                shutil.copy(root / "class_0/0.png", place / f"{number}{name}" / character / "x.png")
    nested = ImageFolderDataModule(root=str(root.parent / "nested"), class_depth=2)
    names = [*nested.samples.class_names]
    assert len(names) == (18 if split else 6) and names[:3] == ["0a/1", "0a/2", "0b/1"]
    with pytest.raises(UserError, match=r"got all .* further down, .* \(datamodule.class_depth=2 makes a class"):
        ImageFolderDataModule(root=str(root.parent / "nested")).setup("fit")
    with pytest.raises(UserError, match=r"datamodule\.class_depth: expected an integer >= 1, got 0"):
        ImageFolderDataModule(root=str(root), class_depth=0)


def test_a_root_one_level_too_high(root: Path) -> None:
    reported = f"^datamodule.root: {root.parent}: expected .*, got all 40 images further down, such as {root}/class_0/"
    with pytest.raises(UserError, match=reported):
        module(root.parent).setup("fit")


def test_one_command_and_no_code(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command: Command = command_in(root.parent, monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "cache"))
    small = ("encoder=mlp", "encoder.in_features=192", "encoder.hidden=[]", "datamodule.image_size=8", "logger=csv")
    words = ("datamodule=image_folder", f"datamodule.root={root}", "datamodule.classes_per_batch=4", *small)
    assert command(*words, "trainer.max_epochs=2", "trainer.accelerator=cpu", "datamodule.num_workers=0") == 0
    assert "recall_at_1" in capsys.readouterr().out
    (root / "class_0/0.png").write_bytes(b"")
    assert command(*words, "trainer.accelerator=cpu") == 2
    reported = capsys.readouterr().err
    assert reported == f"error: data: 1 files that cannot be read: {root}/class_0/0.png (empty file)\n"


def test_a_replacement_does_not_depend_on_what_was_found_before() -> None:
    """Make a class of four samples, two of them unreadable, and a batch of three."""

    def fetch(ids: torch.Tensor) -> torch.Tensor:
        for row in ids.tolist():
            if row in {5, 9}:
                raise BadSampleError(row, f"file {row}")
        return ids

    samples = Samples(fetch, torch.tensor([1, 0] * 5), {})
    found = []
    for first in ([1], [9], [5], [9, 5]):
        dataset = SampleDataset(samples, torch.tensor([1, 3, 5, 7, 9]), replace=True)
        for row in first:
            dataset.__getitems__([[1, 3, 5, 7, 9].index(row)])
        found.append(dataset.__getitems__([0, 2, 3]).index.tolist())
    assert found == [[1, 3, 7]] * 4
    assert dataset.__getitems__([2, 4]).index.tolist() == [7, 1], "each its own"


def test_images_are_shown_and_a_lost_file_is_named(root: Path) -> None:
    data = module(root)
    data.prepare_data()
    data.setup("fit")
    (root / "class_0" / "0.png").write_bytes(b"no image")
    lost, picture = data.show([0, 2])
    assert lost == "0.png"
    assert isinstance(picture, Image.Image)
    expected = ImageInput(8).pixels(str(root / "class_0" / "2.png"))
    assert np.array_equal(np.array(picture), expected)
    assert data.class_names_of([0, 4]) == ["class_0", "class_1"]
    assert [name.partition("/")[0] for name in data.names_of([0, 4])] == ["class_0", "class_1"]
    assert all(name.endswith(".png") for name in data.names_of([0, 4]))
