"""Euclidean forms of the distances, and which subclasses inherit them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metric_module import UserError
from metric_module.distances import (
    SNR,
    Cosine,
    Distance,
    DotProduct,
    Euclidean,
    EuclideanForm,
    Manhattan,
    SquaredEuclidean,
)


class Forward:
    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        return torch.cdist(query, reference, p=3)


class Renamed(Euclidean):
    pass


class Overridden(Euclidean):
    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        return -super().forward(query, reference)


class OverriddenTwice(Overridden):
    pass


class Mixed(Forward, Euclidean):
    pass


class WithItsForm(Overridden):
    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        return -2 * super().forward(query, reference)

    def euclidean_form(self) -> EuclideanForm:
        return EuclideanForm(factor=2)


@pytest.mark.parametrize("kind", [Euclidean, SquaredEuclidean, Cosine, Renamed, WithItsForm])
def test_form_gives_the_distances(kind: type[Distance]) -> None:
    generator = torch.Generator().manual_seed(0)
    query, reference = (torch.randn(rows, 5, generator=generator).double() for rows in (4, 6))
    form = kind().euclidean_form()
    assert form is not None
    expected = kind()(query, reference)
    assert expected.min() > 0
    torch.testing.assert_close(form.of(torch.cdist(form.map(query), form.map(reference))), expected)


@pytest.mark.parametrize("kind", [Manhattan, DotProduct, SNR, Distance])
def test_other_distances_have_no_form(kind: type[Distance]) -> None:
    assert kind().euclidean_form() is None


@pytest.mark.parametrize("kind", [Overridden, OverriddenTwice, Mixed])
def test_forward_alone_does_not_inherit_the_form(kind: type[Distance]) -> None:
    assert kind().euclidean_form() is None
    assert Euclidean().euclidean_form() == EuclideanForm()


def test_mistakes() -> None:
    with pytest.raises(UserError, match=r"^Euclidean form: expected a factor > 0, got -1.0"):
        EuclideanForm(factor=-1.0)
    with pytest.raises(
        UserError, match=r"^Euclidean form: expected finite numbers, got NaN or infinity in 2 of 2 rows"
    ):
        EuclideanForm(rows=lambda rows: rows / 0).map(torch.ones(2, 3))
