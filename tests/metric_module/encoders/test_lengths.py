"""Batching of texts by length."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metric_module.encoders.lengths import encode_by_length, group_by_length


@pytest.mark.parametrize(("lengths", "sizes"), [([7] * 99, [99]), ([9] * 15 + [2] * 40, [16, 39]), ([5], [1])])
def test_group_by_length(lengths: list[int], sizes: list[int]) -> None:
    groups = group_by_length(lengths)
    assert list(map(len, groups)) == sizes
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))


def test_values_and_gradients_come_back_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths: list[int] = torch.randint(1, 60, (100,), generator=generator).tolist()
    inputs = torch.randn(100, 3, generator=generator, requires_grad=True)
    calls: list[int] = []

    def encode(rows: list[int]) -> Tensor:
        calls.append(len(rows))
        return inputs[rows] ** 2

    together = encode_by_length(encode, lengths, together=True)
    assert torch.equal(together, inputs**2) and calls == [100]
    made = encode_by_length(encode, lengths)
    assert len(calls) > 4
    assert torch.equal(made, inputs**2)
    (gradient,) = torch.autograd.grad(made.sum(), inputs)
    assert torch.equal(gradient, 2 * inputs)
