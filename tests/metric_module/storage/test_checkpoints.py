"""Checkpoints are complete or absent, and never run code."""

from __future__ import annotations

import os
import pickle
import resource
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from metric_module import UserError
from metric_module.callbacks.random_state import random_state, set_random_state
from metric_module.storage.checkpoints import WholeCheckpointIO, load_checkpoint, map_checkpoint, newest_checkpoint
from tests.helpers.forked import run_program


def content(value: float = 1.0, size: int = 1000) -> dict[str, Any]:
    return {"state_dict": {"weight": torch.full((size,), value)}}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.ckpt"
    WholeCheckpointIO().save_checkpoint(content(), path)
    assert [file.name for file in path.parent.iterdir()] == ["a.ckpt"]
    loaded = WholeCheckpointIO().load_checkpoint(path, weights_only=False)
    assert torch.equal(loaded["state_dict"]["weight"], torch.ones(1000))


def test_random_numbers_continue(tmp_path: Path) -> None:
    import random

    import numpy as np

    def draws() -> list[Any]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(2).tolist()]  # noqa: NPY002

    draws()
    path = tmp_path / "a.ckpt"
    WholeCheckpointIO().save_checkpoint({**content(), "random": random_state()}, path)
    expected = draws()
    set_random_state(load_checkpoint(path)["random"])
    assert draws() == expected


FULL = """
import resource, signal, sys, torch
from metric_module.storage.checkpoints import WholeCheckpointIO
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
WholeCheckpointIO().save_checkpoint({"state_dict": {"weight": torch.ones(1_000_000)}}, sys.argv[1])
"""


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: a write fails in the same way."""
    assert resource.RLIMIT_FSIZE
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint(content(7), path)
    before = path.read_bytes()
    ended = run_program([sys.executable, "-c", FULL, str(path)], tmp_path)
    assert ended.returncode == 1
    message = f"UserError: checkpoint: cannot write {path} (File too large); the previous checkpoint is kept"
    assert ended.stderr.splitlines()[-1].endswith(message)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"checkpoint: cannot write .*last.ckpt \((Not a directory|File exists)\)$"):
        WholeCheckpointIO().save_checkpoint(content(), tmp_path / "file" / "last.ckpt")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_the_newest_that_is_whole(tmp_path: Path, share: float) -> None:
    for age, name in enumerate(("best", "last")):
        path = tmp_path / f"{name}.ckpt"
        WholeCheckpointIO().save_checkpoint(content(age), path)
        os.utime(path, (age, age))
    assert newest_checkpoint(tmp_path) == tmp_path / "last.ckpt"
    whole = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(whole[: int(share * len(whole))])
    with pytest.warns(UserWarning, match=r"checkpoint: .*last.ckpt is damaged"):
        assert newest_checkpoint(tmp_path) == tmp_path / "best.ckpt"
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    (tmp_path / "last.ckpt").write_bytes(flipped)
    with pytest.warns(UserWarning, match="is damaged"):
        assert newest_checkpoint(tmp_path) == tmp_path / "best.ckpt"
    (tmp_path / "best.ckpt").unlink()
    with pytest.warns(UserWarning, match="is damaged"):
        assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "nowhere") is None


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def test_a_payload_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "extra": Payload()}, "evil.ckpt")
    with pytest.raises(
        UserError, match=r"ckpt_path: evil.ckpt is not a checkpoint of plain tensors \(UnpicklingError\)"
    ):
        WholeCheckpointIO().load_checkpoint("evil.ckpt", weights_only=False)
    assert not Path("ran").exists()
    pickle.loads(pickle.dumps(Payload()))
    assert Path("ran").exists(), "it would have run"


def test_something_else_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.ckpt")
    for name in ("list.ckpt", "missing.ckpt"):
        with pytest.raises(UserError, match=f"ckpt_path: .*{name} is not a checkpoint of plain tensors"):
            load_checkpoint(tmp_path / name)


def test_the_newest_has_the_most_steps(tmp_path: Path) -> None:
    """Not the latest time: the clock may have been set back, or the files copied in another order."""
    for name, step, time in (("best", 285, 30), ("last", 363, 20), ("other", 363, 25), ("broken", "x", 40)):
        torch.save({**content(), "global_step": step}, tmp_path / f"{name}.ckpt")
        os.utime(tmp_path / f"{name}.ckpt", (time, time))
    assert newest_checkpoint(tmp_path) == tmp_path / "last.ckpt"
    (tmp_path / "last.ckpt").unlink()
    assert newest_checkpoint(tmp_path) == tmp_path / "other.ckpt"


def test_a_mapped_checkpoint_is_the_same(tmp_path: Path) -> None:
    torch.save(content(3), tmp_path / "new.ckpt")
    torch.save(content(3), tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    for name in ("new", "old"):
        weights = map_checkpoint(tmp_path / f"{name}.ckpt")["state_dict"]["weight"]
        assert torch.equal(weights, torch.full((1000,), 3.0))
    torch.save([1], tmp_path / "list.ckpt")
    with pytest.raises(UserError, match=r"ckpt_path: .*list.ckpt is not a checkpoint of plain tensors"):
        map_checkpoint(tmp_path / "list.ckpt")


def test_weights_that_a_spawned_process_returns_are_read_as_plain_tensors(tmp_path: Path) -> None:
    """Lightning writes them under this name with ``trainer.strategy=ddp_spawn``; any other file is a checkpoint."""
    for name in (".temp.ckpt", "other.ckpt"):
        torch.save({"weight": torch.ones(2)}, tmp_path / name)
    assert torch.equal(WholeCheckpointIO().load_checkpoint(tmp_path / ".temp.ckpt")["weight"], torch.ones(2))
    with pytest.raises(UserError, match="is not a checkpoint of plain tensors"):
        WholeCheckpointIO().load_checkpoint(tmp_path / "other.ckpt")
    torch.save({"weight": Path}, tmp_path / ".temp.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        WholeCheckpointIO().load_checkpoint(tmp_path / ".temp.ckpt")
