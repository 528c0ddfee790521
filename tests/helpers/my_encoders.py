"""Encoders as a user might write them; tests copy this file to another folder."""

from __future__ import annotations

from torch import Tensor, nn

from metric_module import Encoder


class Tiny(Encoder):
    def __init__(self, embedding_dim: int = 16, grow: int = 1) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim * grow
        self.layers = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(192, self.embedding_dim))

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.normalize(self.layers(inputs), dim=1)


class Wide(Tiny):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs)[:, :3]


class Broken(Tiny):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[:, 7]  # there are three channels
