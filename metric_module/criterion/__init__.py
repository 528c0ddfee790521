"""The criterion: triplet loss and census from a distance, a miner and a margin."""

from metric_module.criterion.census import Census
from metric_module.criterion.loss import triplet_loss
from metric_module.criterion.triplet import CriterionOutput, TripletCriterion

__all__ = ["Census", "CriterionOutput", "TripletCriterion", "triplet_loss"]
