"""Pairs by label and by mask, compared with a loop over anchors and references."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metric_module.criterion.classes import own_classes, reference_classes
from metric_module.criterion.pairing import LabelPairs, MaskPairs, PairRule
from metric_module.miners.positives import positive_slots

LABELS = st.lists(st.sampled_from([-5, 0, 1, 2**53, 2**53 + 1]), min_size=1, max_size=12)


def check_pairs(rule: PairRule, positive: torch.Tensor, negative: torch.Tensor, rows: slice) -> None:
    masks = rule.masks(rows)
    assert torch.equal(masks.positive, positive[rows])
    assert torch.equal(masks.negative, negative[rows])
    pairs = rule.pairs(rows, torch.float64)
    assert pairs.barred.dtype == torch.float64
    assert torch.equal(pairs.barred == 0, negative[rows])
    assert pairs.negatives.tolist() == negative[rows].sum(dim=1).tolist()
    assert list(pairs.slots.number) == positive[rows].sum(dim=1).tolist()
    assert set(pairs.barred.flatten().tolist()) <= {0.0, 1.0}
    for column, valid, expected in zip(pairs.slots.column, pairs.slots.valid, positive[rows], strict=True):
        count = int(valid.sum())
        assert valid[:count].all(), "packed to the left"
        assert sorted(column[:count].tolist()) == expected.nonzero().flatten().tolist()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), labels=LABELS, with_ids=st.booleans(), with_mask=st.booleans())
def test_own_batch(data: st.DataObject, labels: list[int], with_ids: bool, with_mask: bool) -> None:
    rows = len(labels)
    values = torch.tensor(labels)
    ids = torch.tensor(data.draw(st.lists(st.integers(0, 5), min_size=rows, max_size=rows))) if with_ids else None
    allowed = torch.rand(rows, rows, generator=torch.Generator().manual_seed(rows)) < 0.7 if with_mask else None
    first = data.draw(st.integers(0, rows - 1))
    same = values[:, None] == values
    itself = torch.eye(rows, dtype=torch.bool) if ids is None else ids[:, None] == ids
    negative = ~same & ~itself if allowed is None else allowed & ~same & ~itself
    block = slice(first, rows)
    check_pairs(
        LabelPairs(own_classes(values, sort=False), allowed, ids, ids, own=True), same & ~itself, negative, block
    )
    check_pairs(MaskPairs(same, allowed, ids, ids, own=True), same & ~itself, negative, block)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), labels=LABELS, others=LABELS, with_ids=st.booleans())
def test_reference_set(data: st.DataObject, labels: list[int], others: list[int], with_ids: bool) -> None:
    rows, columns = len(labels), len(others)
    values, references = torch.tensor(labels), torch.tensor(others)
    ids = reference_ids = None
    itself = torch.zeros(rows, columns, dtype=torch.bool)
    if with_ids:
        ids = torch.tensor(data.draw(st.lists(st.integers(0, 5), min_size=rows, max_size=rows)))
        reference_ids = torch.tensor(data.draw(st.lists(st.integers(0, 5), min_size=columns, max_size=columns)))
        itself = ids[:, None] == reference_ids
    same = values[:, None] == references
    rule = LabelPairs(reference_classes(values, references), None, ids, reference_ids, own=False)
    check_pairs(rule, same & ~itself, ~same & ~itself, slice(0, rows))
    check_pairs(MaskPairs(same, None, ids, reference_ids, own=False), same & ~itself, ~same & ~itself, slice(0, rows))


def test_slots_of_anchors_without_positives() -> None:
    slots = positive_slots(torch.tensor([[False, False], [True, True], [False, True]]))
    assert slots.column.tolist() == [[0, 0], [0, 1], [1, 0]]
    assert slots.valid.tolist() == [[False, False], [True, True], [True, False]]
    assert positive_slots(torch.zeros(2, 3, dtype=torch.bool)).column.shape == (2, 0)


def test_a_rule_is_by_label_or_by_mask() -> None:
    with pytest.raises(TypeError, match="abstract"):
        PairRule(None, None, None, own=True)  # type: ignore[abstract]
