"""State of the global random number generators of a process, as plain values for a checkpoint."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Return the state of the generators of Python, NumPy, torch and, if available, this process's GPU."""
    words = np.random.get_state(legacy=False)  # noqa: NPY002  # users' code draws from the global generator
    assert isinstance(words, dict)
    return {
        "python": random.getstate(),
        "numpy": {**words, "state": {"key": words["state"]["key"].tolist(), "pos": words["state"]["pos"]}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore the state that :func:`random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    inner = state["numpy"]["state"]
    np.random.set_state(  # noqa: NPY002
        {**state["numpy"], "state": {"key": np.array(inner["key"], dtype=np.uint32), "pos": inner["pos"]}}
    )
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
