"""Nodes that do not see one folder are refused before anything is read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from metric_module import UserError
from metric_module.callbacks import SharedFolder
from tests.helpers.processes import on_ranks
from tests.helpers.training import module


def messages(folders: list[list[str]], nodes: int) -> list[str]:
    """Return the refusal of this rank for each list of folders, one folder for each rank; empty if it may go on."""
    found = []
    for names in folders:
        rank = dist.get_rank()
        strategy = SimpleNamespace(barrier=dist.barrier)
        trainer: Any = SimpleNamespace(num_nodes=nodes, is_global_zero=rank == 0, strategy=strategy)
        try:
            SharedFolder(names[rank]).setup(trainer, module(), "fit")
        except UserError as error:
            found.append(str(error))
        else:
            found.append("")
    return found


@pytest.mark.integration
def test_a_node_with_another_folder_stops_all(tmp_path: Path) -> None:
    one, other = (tmp_path / name for name in ("one", "other"))
    one.mkdir()
    other.mkdir()
    folders = [[str(one), str(one)], [str(one), str(other)]]
    told = f"hydra.run.dir: rank 1 does not see {one} of rank 0; give a folder that all nodes share"
    assert on_ranks(messages, 2, tmp_path / "nodes", folders, 2) == [["", told]] * 2
    assert on_ranks(messages, 2, tmp_path / "processes", folders, 1) == [["", ""]] * 2, "one node has one file system"
    assert not list(one.iterdir()) and not list(other.iterdir())
