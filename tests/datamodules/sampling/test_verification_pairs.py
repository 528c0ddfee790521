"""Tests of LFW's list of pairs, and of a folder in LFW's layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from datamodules import ImageFolderDataModule
from datamodules.sampling.verification_pairs import read_pairs
from metric_module import UserError
from metric_module.encoders import MLP
from metric_module.evaluation import VerificationMetric
from tests.helpers.training import module, trainer

IDS = {("Ann", 1): 0, ("Ann", 2): 1, ("Bo_Li", 1): 2, ("Bo_Li", 12): 3}
LINES = "2\t1\nAnn\t1\t2\nAnn\t1\tBo_Li\t12\nBo_Li\t12\t1\nBo_Li\t1\tAnn\t2\n"


def test_pairs_and_folds(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(LINES)
    found = read_pairs(path, IDS)
    assert found.pairs.tolist() == [[0, 1], [0, 3], [3, 2], [2, 1]]
    assert found.folds.tolist() == [0, 0, 1, 1]
    path.write_text("2\nAnn\t1\t2\nBo_Li\t1\t12\nAnn\t1\tBo_Li\t1\nBo_Li\t1\tAnn\t2\n")
    assert read_pairs(path, IDS).folds.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", r"expected the number of folds and of pairs in line 1, got ''"),
        ("ten\t300", r"expected the number of folds and of pairs in line 1, got 'ten 300'"),
        (LINES + "Ann\t1\t2", "expected 2 x 2 x 1 pairs, got 5"),
        ("1\t1\nAnn\t1\t2\nAnn 1 Bo_Li 1", r"in line 3, got \['Ann 1 Bo_Li 1'\]"),
        ("1\t1\nAnn\t1\t2\nAnn\t1\tCy\t3", "1 samples are not in the data set: Cy 3"),
    ],
)
def test_a_broken_list_is_named(lines: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(lines)
    with pytest.raises(UserError, match=message):
        read_pairs(tmp_path / "pairs.txt", IDS)
    with pytest.raises(UserError, match=r"no file .*none.txt$"):
        read_pairs(tmp_path / "none.txt", IDS)


def test_a_folder_like_lfw(tmp_path: Path) -> None:
    for split, names in {"train": "ab", "val": "cd", "test": "ef"}.items():
        for name in names:
            for number in (1, 2, 3):
                path = tmp_path / "lfw" / split / name / f"{name}_{number:04}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (ord(name) * 7 % 256, number * 40, 90)).save(path)
    (tmp_path / "pairs.txt").write_text("2\t1\ne\t1\t2\ne\t3\tf\t1\nf\t1\t3\nf\t2\te\t1\n")
    data = ImageFolderDataModule(
        2, 2, root=str(tmp_path / "lfw"), image_size=4, pairs_file=str(tmp_path / "pairs.txt"), preflight=False
    )
    assert data.pairs is not None
    labels = data.samples.labels[data.pairs]
    assert (labels[:, 0] == labels[:, 1]).tolist() == [True, False, True, False]
    assert data.pair_folds is not None
    assert data.pair_folds.tolist() == [0, 0, 1, 1]
    model = module(MLP(48, 3, hidden=()), metric=VerificationMetric())
    fit = trainer(tmp_path)
    (figures,) = fit.test(model, datamodule=data, verbose=False)
    assert figures["test/same_pairs"] == 2
    assert 0 <= figures["test/accuracy_2_fold"] <= 1
    (figures,) = fit.validate(model, datamodule=data, verbose=False)
    assert figures["val/same_pairs"] == 6, "all pairs of val, which the list does not speak of"
    assert torch.equal(data.pairs, data.samples.listed.pairs)  # type: ignore[union-attr]
