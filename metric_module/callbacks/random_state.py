"""The global random number generators of a process, as plain values that a checkpoint may hold."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """State of the generators of Python, NumPy, torch and, where it is in use, this process's GPU."""
    words = np.random.get_state(legacy=False)  # noqa: NPY002  # the global generator is what users draw from
    assert isinstance(words, dict)
    return {
        "python": random.getstate(),
        "numpy": {**words, "state": {"key": words["state"]["key"].tolist(), "pos": words["state"]["pos"]}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Continue from what :func:`random_state` gave."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    inner = state["numpy"]["state"]
    np.random.set_state(  # noqa: NPY002
        {**state["numpy"], "state": {"key": np.array(inner["key"], dtype=np.uint32), "pos": inner["pos"]}}
    )
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
