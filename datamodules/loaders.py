"""The loader of training batches."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from metric_module.batch import Batch


class TrainLoader(DataLoader[Batch]):
    """A loader that can continue within an epoch: :class:`datamodules.base.PKDataModule` keeps its place.

    Lightning looks for the two methods of such a loader, and warns without them. It may ask for the loader before it
    has read a checkpoint, so the place is not kept here.
    """

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""
