"""Preprocessing of a trained encoder, applied to the data that it is evaluated on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig, open_dict

from metric_module.datamodule_facts import DataModuleFacts
from metric_module.preprocessing import ImageInput, Preprocessing

SETTINGS = ("image_size", "channels")
"""Options of data modules that determine how an image becomes an encoder input."""


def read_as_trained(
    cfg: DictConfig,
    datamodule: LightningDataModule,
    saved: Preprocessing | None,
    kept: Mapping[str, Any],
    typed: Collection[str] | None,
) -> None:
    """Let a data module read its images as the encoder was trained to, except for options that the user gave.

    An option that differs from that of the training is named in a warning.

    Args:
        cfg: The composed configuration; the options of the training are written to it.
        datamodule: The data, not read yet.
        saved: Preprocessing of the training; None if it is not known.
        kept: Options of the data module of the training, used for older checkpoints that keep no preprocessing.
        typed: Keys that the user typed; None: the whole configuration is the user's own word.
    """
    trained = {key: kept[key] for key in SETTINGS if isinstance(kept.get(key), int)}
    if isinstance(saved, ImageInput):
        trained = {"image_size": saved.size, "channels": saved.channels}
    changed = {}
    for key, value in trained.items():
        given = getattr(datamodule, key, value)
        if given == value:
            continue
        if typed is None or f"datamodule.{key}" in typed:
            rank_zero_warn(f"datamodule.{key}={given}: the encoder was trained with {value}; {given} is used")
            changed[key] = given
        else:
            setattr(datamodule, key, value)
            with open_dict(cfg):
                cfg.datamodule[key] = value
    preprocess_as = DataModuleFacts(datamodule).preprocess_as
    if isinstance(saved, ImageInput) and preprocess_as is not None:
        channels = changed.get("channels", saved.channels)
        size = changed.get("image_size", saved.size)
        preprocess_as(replace(saved, size=size, channels=channels, grey=saved.grey or channels == 1))
