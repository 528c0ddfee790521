"""Tests of messages in one line."""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from metric_module.config.messages import explain
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
