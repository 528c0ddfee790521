"""Every invalid argument has a message with the expected and the actual value."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metric_module import UserError
from metric_module.distances import Distance
from metric_module.evaluation import retrieval_metrics

X, Y = torch.eye(4), torch.tensor([0, 0, 1, 1])


class Odd(Distance):
    def __init__(self, result: Tensor | None) -> None:
        super().__init__()
        self.result = result

    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        return self.result  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"embeddings": [1.0]}, r"embeddings: expected a tensor of shape \[N, D\], got list"),
        ({"embeddings": torch.zeros(4)}, r"embeddings: expected a tensor of shape \[N, D\], got \(4,\)"),
        ({"embeddings": torch.zeros(4, 0)}, r"embeddings: expected a tensor of shape \[N, D\], got \(4, 0\)"),
        ({"embeddings": torch.zeros(4, 2).long()}, "embeddings: expected floating point numbers, got torch.int64"),
        (
            {"embeddings": X / torch.tensor([1.0, 0, 1, 0])[:, None], "ids": Y + 2 * torch.arange(4)},
            r"embeddings: .* NaN or infinity in 2 of 4 rows \(first rows \[1, 3\], ids \[2, 7\]\)",
        ),
        ({"embeddings": X * torch.inf}, r"NaN or infinity in 4 of 4 rows \(first rows \[0, 1, 2, 3\]\)"),
        ({"labels": Y[:3]}, r"labels: expected a tensor of shape \[4\], one integer per embedding, got \(3,\)"),
        ({"labels": [0, 0, 1, 1]}, r"labels: expected a tensor of shape \[4\], one integer per embedding, got list"),
        ({"labels": Y.float()}, "labels: expected integers, got torch.float32"),
        ({"labels": Y.bool()}, "labels: expected integers, got torch.bool"),
        ({"ids": Y}, r"ids: expected each id once, got 0 more than once \(2 repeated\)"),
        ({"ids": torch.arange(5)}, r"ids: expected a tensor of shape \[4\], .* got \(5,\)"),
        ({"groups": Y[:, None]}, r"groups: expected a tensor of shape \[4\], .* got \(4, 1\)"),
        ({"gallery": X}, "gallery and gallery_labels: expected both or neither, got only gallery"),
        ({"gallery_ids": Y, "gallery_labels": Y}, "both or neither, got only gallery_labels, gallery_ids"),
        ({"gallery": X[0], "gallery_labels": Y}, r"gallery: expected a tensor of shape \[N, D\], got \(4,\)"),
        ({"gallery": X * torch.nan, "gallery_labels": Y}, "gallery: expected finite numbers, got NaN or infinity in 4"),
        ({"gallery": X, "gallery_labels": Y[:1]}, r"gallery_labels: expected a tensor of shape \[4\]"),
        ({"gallery": X[:, :3], "gallery_labels": Y}, r"gallery: expected shape \[M, 4\], .* got \[M, 3\]"),
        (
            {"gallery": X, "gallery_labels": Y, "ids": Y},
            "ids and gallery_ids: expected both or neither, gallery_ids is missing",
        ),
        (
            {"gallery": X, "gallery_labels": Y, "gallery_groups": Y},
            "groups and gallery_groups: expected both or neither, groups is missing",
        ),
        (
            {"gallery": X, "gallery_labels": Y, "ids": Y, "gallery_ids": Y},
            r"gallery_ids: expected each id once, got 0 more than once \(2 repeated\)",
        ),
        (
            {
                "labels": torch.tensor([1, 0, 1, 1]),
                "ids": torch.arange(4) + 3,
                "gallery": X,
                "gallery_labels": 1 - Y,
                "gallery_ids": torch.arange(4),
            },
            "gallery_labels: id 3 has label 1 as a query and 0 in the gallery; expected the same",
        ),
        ({"recall_at": (1, 0)}, r"recall_at: expected different integers, 1 or more, got \[1, 0\]"),
        ({"recall_at": (True,)}, r"recall_at: expected different integers, 1 or more, got \[True\]"),
        ({"recall_at": (5, 5)}, r"recall_at: expected different integers, 1 or more, got \[5, 5\]"),
        ({"recall_at": (1.5,)}, r"recall_at: expected different integers, 1 or more, got \[1.5\]"),
        ({"labels": torch.arange(4)}, "labels: expected a query with another item of its class .* got none of 4"),
        ({"groups": Y}, "a query with another item of its class in another group in the gallery, got none of 4"),
        ({"embeddings": torch.zeros(0, 3), "labels": torch.zeros(0).long()}, "in the gallery, got none of 0"),
        (
            {"gallery": torch.zeros(0, 4), "gallery_labels": torch.zeros(0).long()},
            "in the gallery, got none of 4",
        ),
        ({"distance": Odd(torch.zeros(2))}, r"Odd: expected distances of shape \[4, 4\], got \[2\]"),
        ({"distance": Odd(None)}, r"Odd: expected distances of shape \[4, 4\], got NoneType"),
        ({"distance": Odd(torch.nan * X)}, "Odd: expected finite distances, got NaN or infinity in 16 of 16 pairs"),
    ],
)
def test_mistakes_are_named(kwargs: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"embeddings": X, "labels": Y} | kwargs
    with pytest.raises(UserError, match=message):
        retrieval_metrics(**arguments)  # type: ignore[arg-type]
