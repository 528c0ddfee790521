"""CharConvNet: masked padding, hashed characters, and the settings and inputs that it rejects."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metric_module import TripletCriterion, UserError
from metric_module.distances import Euclidean
from metric_module.encoders import CharConvNet
from metric_module.encoders.char_conv_net import character_codes
from metric_module.miners import All

TEXTS = ["Deutschland", "日本", "a", "", "South Georgia and South Sandwich Islands", "대한민국", "ab", "ba"]


def build(**settings: Any) -> CharConvNet:
    torch.manual_seed(0)
    return CharConvNet(**{"embedding_dim": 8, "width": 16, "depth": 3, "buckets": 500, **settings})


def test_contract() -> None:
    encoder = build().train()
    embeddings = encoder(TEXTS)
    assert embeddings.shape == (8, 8)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(8))
    assert (torch.cdist(embeddings, embeddings) + torch.eye(8)).min() > 1e-3
    torch.autograd.backward(TripletCriterion(Euclidean(), All(), margin=0.5)(embeddings, torch.arange(8) // 2).loss)
    assert [name for name, value in encoder.named_parameters() if value.grad is None] == []
    free = build(normalize=False).eval()(TEXTS)
    assert (free.norm(dim=1) - 1).abs().max() > 1e-2
    other = build(dropout=0.5)
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other.eval()(TEXTS), encoder.eval()(TEXTS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_text_does_not_depend_on_the_others(dtype: torch.dtype) -> None:
    encoder = build(kernel=5).to(dtype).eval()
    alone = torch.cat([encoder([text]) for text in TEXTS])
    torch.testing.assert_close(encoder(TEXTS), alone, rtol=0, atol=1e-6)
    backwards = encoder(TEXTS[::-1]).flip(0)
    torch.testing.assert_close(backwards, alone, rtol=0, atol=1e-6)


def test_without_masks_texts_depend_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build().eval()
    alone = encoder(["a"])
    monkeypatch.setattr(torch.Tensor, "masked_fill", lambda values, *_: values)
    assert (encoder(["a", "Deutschland"])[:1] - alone).abs().max() > 1e-3


def test_the_order_of_letters_and_both_ends_count() -> None:
    encoder = build().eval()
    one, other, again = encoder(["ab", "ba", "AB"])
    assert (one - other).abs().max() > 1e-3
    assert torch.equal(one, again), "case-folded"


def test_characters_are_decomposed_and_cut() -> None:
    codes = character_codes(["é", "e\u0301", "한", "e"], buckets=500, max_length=9)
    assert torch.equal(codes[0], codes[1])
    assert (codes[2] > 2).sum() == 3, "a syllable of three letters"
    assert codes[3, :3].tolist() == [1, codes[0, 1].item(), 2]
    assert character_codes(["a" * 9], buckets=500, max_length=4).shape == (1, 6)
    assert 3 <= character_codes(["\U0010ffff\ud800 x"], buckets=5, max_length=9)[0, 1:-1].min() <= 4
    many = character_codes(["".join(map(chr, range(0x4E00, 0x4E00 + 400)))], buckets=10_000, max_length=400)
    assert len(set(many[0].tolist())) > 390, "neighbours in Unicode share no bucket"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "encoder.width: expected an integer >= 1, got 0"),
        ({"depth": 0}, "encoder.depth: expected an integer >= 1, got 0"),
        ({"max_length": 0}, "encoder.max_length: expected an integer >= 1, got 0"),
        ({"kernel": 4}, "encoder.kernel: expected an odd integer >= 1, got 4"),
        ({"buckets": 3}, "encoder.buckets: expected an integer > 3, got 3"),
        ({"dropout": 1.0}, "encoder.dropout: expected 0 <= dropout < 1, got 1.0"),
        ({"embedding_dim": 0}, "encoder.embedding_dim: expected an integer >= 1, got 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(**settings)


def test_inputs_that_are_not_texts() -> None:
    with pytest.raises(UserError, match=r"CharConvNet: expected a list of str, got torch.float32 \[2, 3\]"):
        build()(torch.zeros(2, 3))
    with pytest.raises(UserError, match="CharConvNet: expected a list of str, got str"):
        build()("a text")
