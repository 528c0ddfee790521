"""Sorted rows, compared with torch's stable sort."""

from __future__ import annotations

import pytest
import torch

from metric_module.functional import sort_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [0, 1, 70])
def test_rows_are_sorted_as_by_torch(dtype: torch.dtype, columns: int) -> None:
    values = torch.randn(9, columns, generator=torch.Generator().manual_seed(0), dtype=dtype).mul(3).round()
    values = values.masked_fill(values == 0, 0)  # no negative zero, which comes before zero
    values[:, 10:13] = torch.tensor([torch.inf, -torch.inf, torch.nan])[: values[:, 10:13].shape[1]]
    found, expected = sort_rows(values.T.contiguous().T), values.sort(dim=1, stable=True)
    torch.testing.assert_close(found[0], expected.values, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(found[1], expected.indices)
