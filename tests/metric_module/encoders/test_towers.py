"""LookupEncoder and MultiEncoder."""

from __future__ import annotations

import pytest
import torch

from metric_module import UserError
from metric_module.encoders import MLP, LookupEncoder, MultiEncoder


def test_a_row_for_each_id() -> None:
    encoder = LookupEncoder(count=5, embedding_dim=3, normalize=False, scale=2.0)
    ids = torch.tensor([4, 0, 4])
    embeddings = encoder(ids)
    assert torch.equal(embeddings, encoder.table.weight[ids])
    torch.autograd.backward(embeddings.sum())
    assert encoder.table.weight.grad is not None
    assert encoder.table.weight.grad[:, 0].tolist() == [1, 0, 0, 0, 2]
    assert 1 < LookupEncoder(1000, 8, scale=2.0).table.weight.std() < 3
    torch.testing.assert_close(LookupEncoder(5, 3)(ids).norm(dim=1), torch.ones(3))
    assert encoder(ids[:0]).shape == (0, 3)


def test_ids_that_are_not_there() -> None:
    encoder = LookupEncoder(count=5)
    with pytest.raises(
        UserError, match=r"^encoder.count: expected ids in \[0, 5\), got 7 \(2 of 3 in a batch are out of range\)$"
    ):
        encoder(torch.tensor([0, 7, -1]))
    with pytest.raises(UserError, match=r"^LookupEncoder: expected int64 ids of shape \[B\], got torch.float32 \[2\]$"):
        encoder(torch.zeros(2))
    with pytest.raises(
        UserError, match=r"^LookupEncoder: expected int64 ids of shape \[B\], got a dict with keys user$"
    ):
        encoder({"user": torch.zeros(2)})
    with pytest.raises(UserError, match=r"^encoder.count: expected an integer >= 1, got 0$"):
        LookupEncoder(0)
    with pytest.raises(UserError, match=r"^encoder.embedding_dim: expected an integer >= 1, got -1$"):
        LookupEncoder(1, -1)


def test_the_tower_is_named_with_its_setting() -> None:
    towers = MultiEncoder({"user": LookupEncoder(5, 4), "item": MLP(3, 4)})
    with pytest.raises(UserError, match=r"^encoder.encoders.user.count: expected ids in \[0, 5\), got 7 \(1 of 2"):
        towers({"user": torch.tensor([0, 7])})
    with pytest.raises(UserError, match=r"^encoder.encoders.item.in_features: expected 2 for inputs of shape \[2\]"):
        towers({"item": torch.zeros(1, 2)})
    with pytest.raises(UserError, match=r"^MLP: expected a float tensor"):
        towers({"item": torch.zeros(1, 3).int()})


def test_the_key_names_the_tower() -> None:
    towers = MultiEncoder({"user": LookupEncoder(5, 4), "item": MLP(3, 4, hidden=())})
    ids, rows = torch.tensor([1, 2]), torch.randn(2, 3)
    assert towers.embedding_dim == 4
    assert torch.equal(towers({"user": ids}), towers.encoders["user"](ids))
    assert torch.equal(towers({"item": rows}), towers.encoders["item"](rows))
    assert not torch.equal(towers({"user": ids}), towers({"item": rows}))


def test_towers_that_do_not_go_together() -> None:
    with pytest.raises(UserError, match=r"^encoder.encoders: expected one embedding_dim for all, got a 4, b 3$"):
        MultiEncoder({"a": LookupEncoder(5, 4), "b": LookupEncoder(5, 3)})
    with pytest.raises(UserError, match=r"^encoder.encoders: expected at least one encoder by name, got none$"):
        MultiEncoder({})
    towers = MultiEncoder({"a": LookupEncoder(5, 4), "b": LookupEncoder(5, 4)})
    ids = torch.tensor([1])
    for inputs, message in (
        (ids, "expected a dict with one key of a, b, got torch.int64 \\[1\\]"),
        ({"a": ids, "b": ids}, "expected a dict with one key of a, b, got a dict with keys a, b"),
        ({"c": ids}, "expected a key of a, b, got c"),
    ):
        with pytest.raises(UserError, match=f"^MultiEncoder: {message}$"):
            towers(inputs)
