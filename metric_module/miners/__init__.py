"""Miners: which triplets of a batch to learn from."""

from metric_module.miners.base import Miner, SelectingMiner, Triplets, Uniform, WindowMiner
from metric_module.miners.batch_hard import BatchHard
from metric_module.miners.distance_weighted import DistanceWeighted
from metric_module.miners.windows import All, Easy, Hard, Semihard

__all__ = [
    "All",
    "BatchHard",
    "DistanceWeighted",
    "Easy",
    "Hard",
    "Miner",
    "SelectingMiner",
    "Semihard",
    "Triplets",
    "Uniform",
    "WindowMiner",
]
