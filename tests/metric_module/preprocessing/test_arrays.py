"""Vectors, series and texts alone are as in their data sets."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import torch

from datamodules.sources.texts import Texts
from datamodules.sources.vectors import Arrays, Vectors
from metric_module import UserError
from metric_module.preprocessing import SeriesInput, TextInput, VectorInput


def test_rows_of_a_column() -> None:
    source = Vectors(pa.chunked_array([[[1, 2], [3, 4]]]))
    assert source.preprocessing == VectorInput(2)
    assert torch.equal(source.preprocessing([3, 4]), source(torch.tensor([1]))[0])


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (torch.rand(2, 5, dtype=torch.float64), VectorInput(5)),
        (torch.tensor([[True, False]]), VectorInput(2)),
        (torch.tensor([[1, 2, 3]]), SeriesInput((3,), "int64")),
        (torch.rand(2, 3, 9), SeriesInput((3, 9))),
        (torch.rand(2, 3, 4, 4), SeriesInput((3, 4, 4))),
        (torch.full((1, 3, 4, 5), 200, dtype=torch.uint8), SeriesInput((3, 4, 5), "pixels")),
        (torch.full((1, 1, 4, 4), 200, dtype=torch.uint8), SeriesInput((1, 4, 4), "uint8")),
    ],
)
def test_rows_of_an_array(inputs: torch.Tensor, expected: VectorInput | SeriesInput) -> None:
    source = Arrays(inputs)
    assert source.preprocessing == expected
    batch = source(torch.tensor([0]))[0]
    for item in (inputs[0], inputs[0].numpy(), inputs[0].tolist()):
        alone = expected(item)
        assert torch.equal(alone, batch) and alone.dtype == batch.dtype


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ([1, 2], r"expected numbers of shape \[3\], got shape \[2\]"),
        (["a", "b", "c"], "expected numbers, got list of <U1"),
        (None, "expected numbers, got NoneType of object"),
    ],
)
def test_what_is_no_vector_is_refused(item: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        VectorInput(3)(item)


def test_texts() -> None:
    assert Texts(["eins"]).preprocessing == TextInput()
    with pytest.raises(UserError, match=r"expected a text \(str\), got bytes"):
        TextInput()(b"eins")  # type: ignore[arg-type]
