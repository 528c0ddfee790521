"""Tests of messages in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from metric_module.config.messages import explain, lost_process
from metric_module.errors import UserError


class Broken(Dataset[Any]):
    """A data set whose only sample cannot be read."""

    def __len__(self) -> int:
        return 1

    @override
    def __getitem__(self, place: int) -> Any:
        try:
            raise OSError("cannot identify image file")
        except OSError as error:
            raise UserError("data: cannot read a.png: (cannot identify image file)") from error


def test_an_error_in_a_loaders_worker_is_one_line() -> None:
    with pytest.raises(UserError, match="Original Traceback") as error:
        next(iter(DataLoader(Broken(), num_workers=1)))
    assert explain(error.value) == "data: cannot read a.png: (cannot identify image file)"


def test_an_argument_that_a_loggers_package_rejects_is_one_line(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, unknown_key=1)
    with pytest.raises(TypeError) as caught:
        logger.experiment  # noqa: B018
    assert (explain(caught.value) or "").startswith("logger: SummaryWriter.__init__() got an unexpected keyword")


GLOO = (
    "[/src/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:5: Connection reset by peer. This is"
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (GLOO, "gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:5: Connection reset by peer"),
        ("Gloo connectFullMesh failed with [a] timed out", "Gloo connectFullMesh failed with [a] timed out"),
        ("x: ncclRemoteError: A call failed", "ncclRemoteError: A call failed"),
        ("NCCL communicator was aborted on rank 1.", "NCCL communicator was aborted on rank 1."),
    ],
)
def test_a_process_that_is_gone(text: str, why: str) -> None:
    error = RuntimeError("in a callback")
    error.__cause__ = RuntimeError(text)
    told = f"another process of this run has ended or cannot be reached ({why}); its own messages may say why; "
    assert lost_process(error) == f"{told}continue with resume=<run>"
    assert lost_process(ValueError(text)) is None and lost_process(RuntimeError("shape mismatch")) is None
