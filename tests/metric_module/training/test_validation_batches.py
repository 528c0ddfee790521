"""Batches of a set for its loss: shape of training, every class, whatever the order of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module.training.validation_batches import validation_batches

LABELS = torch.cat(
    [torch.arange(40).repeat_interleave(7), torch.arange(40, 43).repeat_interleave(3), torch.tensor([99])]
)


def ids_of(labels: Tensor, ids: Tensor, classes: int = 16, samples: int = 4) -> list[list[int]]:
    return [sorted(ids[rows].tolist()) for rows in validation_batches(labels, ids, classes, samples)]


def test_every_class_comes_with_k_samples_or_all_it_has() -> None:
    batches = validation_batches(LABELS, torch.arange(len(LABELS)), 16, 4)
    assert len(batches) == 3
    for rows in batches:
        classes, sizes = torch.unique(LABELS[rows], return_counts=True)
        assert len(classes) == 16 and len(set(rows.tolist())) == len(rows)
        assert sizes.tolist() == [4 if label < 40 else 3 for label in classes.tolist()]
    drawn = [torch.unique(LABELS[rows]).tolist() for rows in batches]
    assert {label for labels in drawn for label in labels} == set(range(43))
    assert not set(drawn[0]) & set(drawn[1]) and len(set(drawn[0]) & set(drawn[2])) == 48 - 43
    assert drawn[0] != list(range(16)), "in random order"


def test_the_order_of_rows_does_not_matter() -> None:
    ids = torch.arange(len(LABELS)) * 3
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))
    assert ids_of(LABELS, ids) == ids_of(LABELS[order], ids[order])


def test_fewer_classes_than_a_batch_are_one_batch() -> None:
    (rows,) = validation_batches(LABELS, torch.arange(len(LABELS)), 64, 4)
    assert len(torch.unique(LABELS[rows])) == 43, "without the class of one sample"


def test_classes_of_one_sample_are_used_where_nothing_else_is() -> None:
    labels = torch.tensor([5, 5, 7, 8])
    assert ids_of(labels, torch.arange(4)) == [[0, 1, 2, 3]]
