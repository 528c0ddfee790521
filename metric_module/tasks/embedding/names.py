"""What a data module knows of its samples, for the files that name them.

Legend: N samples, C classes, S splits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from metric_module.datamodule_facts import DataModuleFacts
from metric_module.tasks.embedding.formats import SplitOf
from metric_module.tasks.embedding.shards import Integers

NAMED = 1 << 20
"""Labels from 0 up to here can have names."""


def class_names(datamodule: Any, ids: Integers, labels: Integers) -> list[str] | None:
    """Name of each label from 0 to the largest, empty where no sample has it.

    Args:
        datamodule: Asked for ``class_names_of(ids)``, with one sample of each class.
        ids: ``(N,)``.
        labels: ``(N,)``.

    Returns:
        The names; None if the data module has none, or a label cannot be an index.
    """
    of = DataModuleFacts(datamodule).class_names_of
    if of is None:
        return None
    classes, first = np.unique(labels, return_index=True)  # (C,), (C,)
    if classes[0] < 0 or classes[-1] >= NAMED:
        return None
    names = [""] * (int(classes[-1]) + 1)
    for label, name in zip(classes.tolist(), of(ids[first].tolist()), strict=True):
        names[label] = str(name)
    return names


def split_of(datamodule: Any) -> SplitOf | None:
    """What tells the split of samples by id; None if the data module does not say.

    Args:
        datamodule: Asked for ``samples.splits``, the ids of each split.
    """
    splits = DataModuleFacts(datamodule).splits
    if not splits:
        return None
    names = np.array([*splits], dtype=np.str_)  # (S,)
    known = np.concatenate([np.asarray(ids) for ids in splits.values()])  # (N,)
    codes = np.repeat(np.arange(len(names)), [len(ids) for ids in splits.values()])  # (N,)
    order = np.argsort(known, kind="stable")
    known, codes = known[order], codes[order]

    def find(ids: Integers) -> npt.NDArray[np.str_]:
        """The split of each."""
        found: npt.NDArray[np.str_] = names[codes[np.searchsorted(known, ids)]]
        return found

    return find
