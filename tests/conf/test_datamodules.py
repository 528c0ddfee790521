"""Test that a data module has the same defaults in Python and in its yaml."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import datamodules
from metric_module.config import conf_folder

SEVERAL = {"PublishedDataModule", "IDXDataModule"}
"""Classes that read several data sets; the yaml of each sets what belongs to it."""
OF_THE_DATA_SET = {
    "read",
    "image_size",
    "classes_per_batch",
    "samples_per_class",
    "short_classes",
    "class_turns",
    "augment",
    "class_names",
    "fractions",
}
YAMLS = sorted((conf_folder() / "datamodule").glob("*.yaml"), key=lambda path: path.stem)


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: str(path.stem))
def test_python_and_yaml_have_the_same_defaults(path: Path) -> None:
    values: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    name = values.pop("_target_").rpartition(".")[2]
    defaults = {field.name: field.default for field in fields(getattr(datamodules, name))}
    free = OF_THE_DATA_SET if name in SEVERAL else set()
    set_by_the_user = {key for key, value in values.items() if value == "???" or str(value).startswith("${")}
    different = {}
    for key in values.keys() - free - set_by_the_user:
        default = defaults[key]
        default = list(default) if isinstance(default, tuple) else default
        if default is MISSING or default != values[key]:
            different[key] = (values[key], default)
    assert not different
