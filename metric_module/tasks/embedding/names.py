"""Names, labels and splits of samples as text columns of a file.

Legend: n samples of a block.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lightning.pytorch import LightningDataModule

from metric_module.datamodule_facts import DataModuleFacts
from metric_module.tasks.embedding.shards import Block


class Naming:
    """Look up the text columns of samples in a data module.

    Args:
        datamodule: Any data module.
        split: The split that is embedded; ``all`` looks up the split of each sample.
    """

    def __init__(self, datamodule: LightningDataModule, split: str) -> None:
        facts = DataModuleFacts(datamodule)
        self._class_names_of = facts.class_names_of
        self._item_names_of = facts.item_names_of or facts.names_of
        self._relations = facts.sought is not None
        splits = (facts.splits or {}) if split == "all" else {}
        self._ids_of = {name: np.asarray(ids) for name, ids in splits.items()}
        self._split = None if split == "all" else split

    def labels(self, block: Block) -> pa.Array:
        """Class names ``(n,)``; without them, the integer labels as text; null for a sample without label."""
        if self._class_names_of is None:
            names = pa.array(block.labels).cast(pa.string())
        else:
            names = _texts(self._class_names_of(block.ids.tolist()))
        return pc.if_else(pa.array(block.labels == -1), None, names)

    def names(self, block: Block) -> pa.Array:
        """Names of samples ``(n,)``: in relations those of the classes, elsewhere paths of files; else the ids."""
        if self._relations:
            return self.labels(block)
        if self._item_names_of is None:
            return pa.array(block.ids).cast(pa.string())
        return _texts(self._item_names_of(block.ids.tolist()))

    def splits(self, block: Block) -> pa.Array:
        """Splits ``(n,)``; null where the data module has none."""
        found = np.full(len(block.ids), self._split, dtype=object)
        for name, ids in self._ids_of.items():
            found[np.isin(block.ids, ids)] = name
        return pa.array(found, pa.string())


def _texts(names: list[str]) -> pa.Array:
    """Make a column of texts ``(n,)``; bytes of file names that are no text are escaped."""
    try:
        return pa.array(names, pa.string())
    except UnicodeEncodeError:
        return pa.array([name.encode(errors="backslashreplace").decode() for name in names], pa.string())
