"""Small data sets hold the same samples in every layout, and each run is measured once."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import small_data, small_sets
from benchmarks.common import recipe
from benchmarks.small_data import Run

CLASSES = {
    f"class {number}": list(np.random.default_rng(number).integers(0, 256, (4, 8, 8, 3), np.uint8))
    for number in range(10)
}


def test_the_data_modules_read_the_same_images_and_split_them_alike(tmp_path: Path) -> None:
    small_sets.write(tmp_path / "drawn", CLASSES)
    read: dict[str, tuple[Tensor, list[str]]] = {}
    for module, overrides in small_sets.layouts(tmp_path / "drawn").items():
        seed = ["++datamodule.split_seed=3", "datamodule.num_workers=0"]
        size = [] if module == "arrays" else ["++datamodule.image_size=8"]
        data: Any = recipe([f"datamodule={module}", *overrides, *seed, *size]).datamodule
        samples = data.samples
        ids = samples.splits["val"]
        read[module] = samples.fetch(ids), [samples.class_names[label] for label in samples.labels[ids].tolist()]
    first, names = read["arrays"]
    assert set(names) < set(CLASSES) and len(set(names)) == 2
    expected = torch.from_numpy(np.stack([image for name in dict.fromkeys(names) for image in CLASSES[name]]))
    assert torch.allclose(first, expected.permute(0, 3, 1, 2) / 127.5 - 1)
    assert all(torch.equal(images, first) and found == names for images, found in read.values())


def test_a_larger_draw_of_emoji_contains_a_smaller_one() -> None:
    few, more = small_sets.emoji(5), small_sets.emoji(8)
    assert [*few] == [*more][:5] and len(more) == 8
    contents = [image.tobytes() for images in more.values() for image in images]
    assert len(contents) == len(set(contents)) >= 8 * 4


def test_classes_that_share_an_image_are_left_out_and_repeated_images_too() -> None:
    one, two, three = (np.full((2, 2), value, np.uint8) for value in (1, 2, 3))
    found = small_sets.distinct({"a": [one, one, two], "b": [two, three], "c": [three]}, 2)
    assert {name: [int(image[0, 0]) for image in images] for name, images in found.items()} == {"a": [1, 2], "c": [3]}


def test_a_run_is_measured_once_and_the_table_has_mean_and_spread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def train(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        folder = next(Path(word.removeprefix("output_dir=")) for word in command if word.startswith("output_dir="))
        value = 0.25 * ("seed=2" in command)
        val = {"map_at_r": value, "recall_at_1": 1, "best_step": 112}
        (folder / "metrics.json").write_text(json.dumps({"raw": {"map_at_r": 0.125}, "val": val}))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", train)
    runs = [Run("emoji20", "arrays", seed, "optimizer.lr=0.1 test=false") for seed in ("1", "2")]
    for _ in range(2):
        rows = small_data.measure_all(runs, tmp_path, tmp_path / "runs.csv", jobs=1)
    assert len(commands) == 2
    assert {"datamodule=arrays", "seed=1", "++datamodule.split_seed=1", "optimizer.lr=0.1"} <= set(commands[0])
    assert f"datamodule.path={tmp_path}/emoji20/arrays.npz" in commands[0]
    with (tmp_path / "runs.csv").open(newline="") as file:
        assert [row["val/map_at_r"] for row in csv.DictReader(file)] == ["0.0000", "0.2500"]
    header, _, line = (text.split(" | ") for text in small_data.table(rows).splitlines())
    cells = dict(zip(header, line, strict=True))
    assert cells["raw/map_at_r"] == "0.125 (0.000)" and cells["val/map_at_r"] == "0.125 (0.250)"
    assert cells["before/map_at_r"] == cells["test/map_at_r"] == "" and cells["best_step"] == "112 (0)"
    assert "emoji20 arrays 2 optimizer.lr=0.1 test=false: 0 s, val MAP@R 0.2500" in capsys.readouterr().out


def test_a_failed_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", "no space"))
    with pytest.raises(SystemExit, match=r"subset='glyphs', module='arrays', seed='1', overrides=''.*: no space"):
        Run("glyphs", "arrays", "1", "").measure(tmp_path, 1)
