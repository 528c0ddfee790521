"""Check that all nodes of a run see one folder."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from metric_module.distributed import gather_objects
from metric_module.errors import UserError


class SharedFolder(Callback):
    """Refuse to work on several nodes in a folder that not all of them see, before a checkpoint is read.

    The first process writes the files of a run, and all processes read its checkpoints. Otherwise a node without the
    folder would start anew, or measure other weights than the best.

    Args:
        folder: Folder of the run.

    Raises:
        UserError: When the trainer starts, if a process does not see a file that the first one wrote there.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write a file on the first process, and look for it on all."""
        if trainer.num_nodes == 1:
            return
        name, first = gather_objects((f".shared.{uuid4().hex}", str(self.folder)))[0]
        if trainer.is_global_zero:
            (self.folder / name).touch()
        trainer.strategy.barrier()
        seen = gather_objects((self.folder / name).is_file())
        if trainer.is_global_zero:
            (self.folder / name).unlink()
        if not all(seen):
            ranks = ", ".join(str(rank) for rank, found in enumerate(seen) if not found)
            raise UserError(
                f"hydra.run.dir: rank {ranks} does not see {first} of rank 0; give a folder that all nodes share"
            )
