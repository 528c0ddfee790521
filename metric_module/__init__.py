"""Train embeddings with the triplet loss: encoders, distances, miners, criterion, evaluation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from metric_module.version import __version__ as __version__

if TYPE_CHECKING:
    from metric_module.batch import Batch, PairBatch
    from metric_module.criterion import CriterionOutput, TripletCriterion
    from metric_module.criterion.census import Census
    from metric_module.criterion.loss import triplet_loss
    from metric_module.encoders import Encoder
    from metric_module.errors import UserError
    from metric_module.miners import Triplets
    from metric_module.module import TripletModule
    from metric_module.storage.weights import load_encoder, save_encoder

__all__ = [
    "Batch",
    "Census",
    "CriterionOutput",
    "Encoder",
    "PairBatch",
    "TripletCriterion",
    "TripletModule",
    "Triplets",
    "UserError",
    "load_encoder",
    "save_encoder",
    "triplet_loss",
]

_HOME = {
    "Batch": "batch",
    "Census": "criterion.census",
    "CriterionOutput": "criterion",
    "Encoder": "encoders",
    "PairBatch": "batch",
    "TripletCriterion": "criterion",
    "TripletModule": "module",
    "Triplets": "miners",
    "UserError": "errors",
    "load_encoder": "storage.weights",
    "save_encoder": "storage.weights",
    "triplet_loss": "criterion.loss",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the command line must answer before torch has loaded."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
