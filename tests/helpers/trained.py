"""Checkpoints of encoders that were never trained, in the form in which a training writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate

from metric_module import Encoder
from metric_module.preprocessing import Preprocessing

EUCLIDEAN = {"_target_": "metric_module.distances.Euclidean"}


def write_checkpoint(
    path: Path, node: dict[str, Any], preprocessing: Preprocessing | None = None, **changes: Any
) -> Encoder:
    """Write a checkpoint, and return its encoder in evaluation mode."""
    torch.manual_seed(3)
    encoder: Encoder = instantiate(node, _convert_="all").eval()
    content = {
        "state_dict": {f"encoder.{name}": value for name, value in encoder.state_dict().items()},
        "config": {"encoder": node, "distance": EUCLIDEAN},
        "threshold": 0.75,
    }
    if preprocessing is not None:
        content["preprocessing"] = preprocessing.to_json()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content | changes, path)
    return encoder
