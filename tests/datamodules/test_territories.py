"""Tests of names of territories: which names of babel are used and which are removed."""

from __future__ import annotations

import sys
from collections import Counter
from importlib.metadata import version

import pytest
import torch

from datamodules import TerritoriesDataModule, territories
from datamodules.territories import NOT_ONE_PLACE, Name, script, territory_names
from metric_module.errors import UserError


@pytest.fixture(scope="module")
def data() -> TerritoriesDataModule:
    """Make the data set with scripts as groups."""
    return TerritoriesDataModule()


def test_figures_of_the_data_set(data: TerritoriesDataModule) -> None:
    samples = data.samples
    classes = {split: set(samples.labels[ids].tolist()) for split, ids in samples.splits.items()}
    assert {split: len(found) for split, found in classes.items()} == {"train": 155, "val": 51, "test": 51}
    assert len(set().union(*classes.values())) == 257 == len(set(samples.class_names))
    assert torch.cat(list(samples.splits.values())).sort().values.tolist() == list(range(len(samples.labels)))
    known = {
        "2.18.0": {"train": 20814, "val": 7002, "test": 6868},
        "2.19.0": {"train": 21461, "val": 7230, "test": 7121},
    }
    sizes = {split: len(ids) for split, ids in samples.splits.items()}
    assert sizes == known.get(version("babel"), sizes)


def test_names_are_those_of_their_territory() -> None:
    names = set(territory_names())
    assert {Name("DE", "Deutschland", "de"), Name("DE", "Germany", "en"), Name("DE", "Saksa", "fi")} <= names
    assert Name("JP", "日本", "ja") in names or Name("JP", "日本", "zh") in names
    assert not {name.territory for name in names} & NOT_ONE_PLACE
    assert all(len(name.territory) == 2 and name.territory.isalpha() for name in names)


def test_no_name_is_that_of_two_territories_and_none_comes_twice() -> None:
    counts = Counter(name.text for name in territory_names())
    assert set(counts.values()) == {1}
    assert not {"Kongo", "Nigeri"} & set(counts)
    assert {"Congo - Kinshasa", "Congo - Brazzaville"} <= set(counts)


def test_groups_are_languages_or_scripts(data: TerritoriesDataModule) -> None:
    names = territory_names()
    spoken = TerritoriesDataModule(group_by="language").groups
    for groups, words in (
        (data.groups, [script(name.text) for name in names]),
        (spoken, [name.language for name in names]),
    ):
        assert groups is not None
        code = dict(zip(groups.tolist(), words, strict=True))
        assert [code[group] for group in groups.tolist()] == words, "a word for each group"
        assert len(code) == len(set(words)) > 30, "and a group for each word"


def test_what_a_person_sees(data: TerritoriesDataModule) -> None:
    row = next(row for row, name in enumerate(territory_names()) if name.text == "Germany")
    assert data.show([row]) == ["Germany"]
    assert data.class_names_of([row]) == ["DE Germany"]


def test_preflight_finds_nothing(data: TerritoriesDataModule) -> None:
    data.prepare_data()


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"datamodule\.group_by: expected script or language, got 'continent'"):
        TerritoriesDataModule(group_by="continent")
    monkeypatch.setitem(sys.modules, "babel", None)
    with pytest.raises(
        UserError, match=r"datamodule=territories needs babel: pip install 'lightning-triplets\[text\]'"
    ):
        territories._locales()
