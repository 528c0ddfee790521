"""Sparse rows, compared with dense matrices."""

from __future__ import annotations

import pytest
import torch

from metric_module.evaluation.exact.sparse_rows import Entries, SparseRows, joined


@pytest.mark.parametrize("entries", [0, 1, 60])
def test_equals_a_dense_matrix(entries: int) -> None:
    generator = torch.Generator().manual_seed(entries)
    places = [torch.randint(0, size, (entries,), generator=generator) for size in (7, 5)]
    values = torch.randn(entries, generator=generator).double()
    dense = torch.zeros(7, 5).double().index_put_((places[0], places[1]), values, accumulate=True)
    sparse = SparseRows.of(Entries(places[0], places[1], values), 7, 5)
    assert len(sparse.values) == int((dense != 0).sum()) == sparse.counts(torch.arange(7)).sum()
    picked = torch.tensor([3, 0, 3, 6])
    for rows, found in ((picked, sparse.pick(picked)), (torch.arange(7), sparse.all())):
        made = torch.zeros(len(rows), 5).double()
        made[found.rows, found.columns] = found.values
        torch.testing.assert_close(made, dense[rows], rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(sparse.sums(), dense.sum(dim=1), rtol=1e-12, atol=1e-12)
    twice = SparseRows.of(joined([sparse.all(), sparse.all()]), 7, 5)
    torch.testing.assert_close(twice.sums(), 2 * sparse.sums(), rtol=1e-15, atol=0)
