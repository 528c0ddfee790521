"""Train embeddings with the triplet loss: encoders, distances, miners, criterion, evaluation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from metric_module.version import __version__ as __version__

if TYPE_CHECKING:
    from metric_module.batch import Batch as Batch
    from metric_module.batch import PairBatch as PairBatch
    from metric_module.criterion import CriterionOutput as CriterionOutput
    from metric_module.criterion import TripletCriterion as TripletCriterion
    from metric_module.criterion.census import Census as Census
    from metric_module.criterion.loss import triplet_loss as triplet_loss
    from metric_module.encoders import Encoder as Encoder
    from metric_module.errors import UserError as UserError
    from metric_module.inference import Embedder as Embedder
    from metric_module.inference import EmbeddingIndex as EmbeddingIndex
    from metric_module.miners import Triplets as Triplets
    from metric_module.module import TripletModule as TripletModule
    from metric_module.storage.weights import load_encoder as load_encoder
    from metric_module.storage.weights import save_encoder as save_encoder

_HOME = {
    "Batch": "batch",
    "Census": "criterion.census",
    "CriterionOutput": "criterion",
    "Embedder": "inference",
    "EmbeddingIndex": "inference",
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

__all__ = [*_HOME]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the command line must answer before torch has loaded."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
