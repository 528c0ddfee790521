"""HistoryEncoder."""

from __future__ import annotations

import math

import pytest
import torch

from metric_module import UserError
from metric_module.encoders import HistoryEncoder

HISTORIES = torch.tensor([[4, 0, 4], [2, -1, -1], [-1, -1, -1], [1, 3, -1]])


@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_a_history_is_the_weighted_sum_of_its_items(decay: float) -> None:
    encoder = HistoryEncoder(count=5, embedding_dim=3, decay=decay, normalize=False, scale=2.0).double()
    expected = []
    for history in HISTORIES.tolist():
        total = encoder.anyone.detach().clone()
        for age, item in enumerate(history):
            if item >= 0:
                total += math.exp(-decay * age) * encoder.table.weight[item].detach()
        expected.append(total)
    torch.testing.assert_close(encoder(HISTORIES), torch.stack(expected), rtol=1e-6, atol=1e-6)
    torch.autograd.backward(encoder(HISTORIES).sum())
    assert encoder.table.weight.grad is not None
    first, second, third = (math.exp(-decay * age) for age in range(3))
    weights = torch.tensor([second, first, first, second, first + third], dtype=torch.float64)
    torch.testing.assert_close(encoder.table.weight.grad[:, 0], weights, rtol=1e-6, atol=1e-6)


def test_embeddings_have_length_one_and_padding_changes_nothing() -> None:
    encoder = HistoryEncoder(5, 3)
    embeddings = encoder(HISTORIES)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(embeddings[2], encoder.anyone / encoder.anyone.norm())
    torch.testing.assert_close(encoder(HISTORIES[[1, 3], :2]), embeddings[[1, 3]])
    assert encoder(HISTORIES[:0]).shape == (0, 3)
    ids = torch.tensor([4, 0])
    rows = encoder.table.weight[ids]
    torch.testing.assert_close(encoder(ids), rows / rows.norm(dim=1, keepdim=True))


def test_inputs_that_are_no_histories() -> None:
    encoder = HistoryEncoder(count=5)
    shape = r"HistoryEncoder: expected int64 ids of shape \[B\] or \[B, L\], got"
    for inputs, message in (
        (torch.tensor([[0, 7, -2]]), r"encoder.count: expected ids in \[-1, 5\), got 7 \(2 of 3 in a batch are out "),
        (torch.tensor([0, -1]), r"encoder.count: expected ids in \[0, 5\), got -1 \(1 of 2 in a batch are out of "),
        (torch.zeros(2, 3), rf"{shape} torch.float32 \[2, 3\]$"),
        (torch.tensor(1), rf"{shape} torch.int64 \[\]$"),
    ):
        with pytest.raises(UserError, match=f"^{message}"):
            encoder(inputs)
    for settings, message in (
        ({"count": 0}, r"count: expected an integer >= 1, got 0$"),
        ({"count": 1, "embedding_dim": -1}, r"embedding_dim: expected an integer >= 1, got -1$"),
        ({"count": 1, "decay": -0.5}, r"decay: expected a number >= 0, got -0.5$"),
        ({"count": 1, "decay": math.nan}, r"decay: expected a number >= 0, got nan$"),
    ):
        with pytest.raises(UserError, match=f"^encoder.{message}"):
            HistoryEncoder(**settings)
