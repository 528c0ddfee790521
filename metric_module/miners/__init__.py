"""Miners: selection of the triplets of a batch to learn from."""

from metric_module.miners.base import SelectingMiner, Triplets, Uniform, WindowMiner
from metric_module.miners.batch_hard import BatchHard
from metric_module.miners.distance_weighted import DistanceWeighted
from metric_module.miners.easy_positive import EasyPositive
from metric_module.miners.random import Random
from metric_module.miners.scheduled import Miner, Scheduled
from metric_module.miners.semihard_nearest import SemihardNearest
from metric_module.miners.windows import All, Easy, Hard, Semihard

__all__ = [
    "All",
    "BatchHard",
    "DistanceWeighted",
    "Easy",
    "EasyPositive",
    "Hard",
    "Miner",
    "Random",
    "Scheduled",
    "SelectingMiner",
    "Semihard",
    "SemihardNearest",
    "Triplets",
    "Uniform",
    "WindowMiner",
]
