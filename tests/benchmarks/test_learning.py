"""The peer's criterion in the benchmark of what is learned."""

from __future__ import annotations

import torch

from benchmarks.learning import PeerCriterion
from metric_module import TripletCriterion, TripletModule
from metric_module.distances import Euclidean
from metric_module.encoders import MLP
from metric_module.miners import All


def test_training_calls_the_miner_of_the_peer() -> None:
    """In evaluation the loss is ours, over the whole set."""
    criterion = PeerCriterion(TripletCriterion(Euclidean(), All(), margin=0.2), "all")
    module = TripletModule(MLP(in_features=4, embedding_dim=3), criterion)
    inputs, labels = torch.randn(12, 4), torch.arange(12) % 3
    calls: list[int] = []
    criterion.peer_miner.register_forward_pre_hook(lambda miner, given: calls.append(len(given[0])))
    loss = module.mine((inputs, labels), census=False).loss
    assert calls == [12] and loss > 0
    criterion.eval()
    assert module.mine((inputs, labels), census=False).loss > 0
    assert calls == [12]
