"""Facts about the samples of any data module."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import LightningDataModule

from datamodules import PKDataModule
from datamodules.relations.base import PairDataModule
from metric_module.datamodule_facts import DataModuleFacts, Fact
from tests.helpers.small import Clouds

FACTS = {name for name, value in vars(DataModuleFacts).items() if isinstance(value, Fact)}
OF_RELATIONS = {"sought", "queries", "class_names_of", "preprocessing", "preprocess_as", "accept_any_items"}


def test_every_fact_is_listed_and_offered_by_our_data_modules() -> None:
    assert {
        "groups",
        "queries",
        "pairs",
        "pair_folds",
        "sought",
        "show",
        "class_names_of",
        "names_of",
        "item_names_of",
        "classes_trained_on",
        "classes_in",
        "classes_per_batch",
        "samples_per_class",
        "eval_dataloader",
        "preprocessing",
        "preprocess_as",
        "accept_any_items",
        "neighbours",
        "neighbour_tables",
        "next_neighbours_step",
        "centre_samples",
        "set_neighbours",
        "samples",
    } == FACTS
    assert {name for name in FACTS if hasattr(PKDataModule, name)} == FACTS - {"sought"}
    assert {name for name in FACTS if hasattr(PairDataModule, name)} == OF_RELATIONS


def test_facts_of_a_data_module_with_classes() -> None:
    data = Clouds(samples_per_class=2)
    facts = DataModuleFacts(data)
    assert facts.groups is None and facts.sought is None and facts.samples_per_class == 2
    assert facts.class_names_of is not None and facts.class_names_of([9]) == ["cloud 2"]
    assert facts.splits is not None and facts.splits["val"].tolist() == list(range(48, 60))
    assert facts.classes_trained_on is not None and facts.classes_trained_on("val") == 0
    assert facts.classes_in is not None and facts.classes_in("val") == 3 and facts.trained_classes("val") == {}


def test_classes_that_are_trained_on_are_counted() -> None:
    class Own(LightningDataModule):
        def classes_trained_on(self, split: str) -> int:
            return {"val": 0, "test": 3}[split]

    assert DataModuleFacts(Own()).trained_classes("val") == DataModuleFacts(None).trained_classes("test") == {}
    assert DataModuleFacts(Own()).trained_classes("test") == {"classes_trained_on": 3}
    Own.classes_in = lambda self, split: 5  # type: ignore[attr-defined]
    assert DataModuleFacts(Own()).trained_classes("test") == {"classes_trained_on": 3, "classes": 5}


@pytest.mark.parametrize("data", [None, LightningDataModule()])
def test_without_facts_each_is_none(data: Any) -> None:
    facts = DataModuleFacts(data)
    assert {name: getattr(facts, name) for name in (*FACTS, "splits")} == dict.fromkeys((*FACTS, "splits"))
    trainer: Any = SimpleNamespace()
    assert DataModuleFacts.of(trainer).datamodule is None


def test_tensors_and_empty_values_are_kept() -> None:
    class Own(LightningDataModule):
        groups = torch.zeros(3, dtype=torch.int64)
        samples_per_class = 0

    facts = DataModuleFacts(Own())
    assert facts.groups is Own.groups and facts.samples_per_class == 0


def test_an_error_inside_the_data_module_is_not_taken_for_an_absent_fact() -> None:
    class Broken(LightningDataModule):
        @property
        def groups(self) -> Callable[..., Any]:
            return self.labels  # type: ignore[no-any-return, attr-defined]

    with pytest.raises(AttributeError, match="labels"):
        _ = DataModuleFacts(Broken()).groups
