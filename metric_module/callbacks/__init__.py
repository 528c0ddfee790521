"""Lightning callbacks: checkpoints, averages, schedules, guards, and data for the report."""

from metric_module.callbacks.before_training import BeforeTraining
from metric_module.callbacks.check_figures import CheckFigures
from metric_module.callbacks.class_neighbours import ClassNeighbours
from metric_module.callbacks.collapse_guard import CollapseGuard
from metric_module.callbacks.ema import EMA
from metric_module.callbacks.freeze_backbone import FreezeBackbone
from metric_module.callbacks.last_checkpoint import LastCheckpoint
from metric_module.callbacks.last_validation import LastValidation
from metric_module.callbacks.margin_schedule import MarginSchedule
from metric_module.callbacks.mined_triplets import MinedTriplets
from metric_module.callbacks.progress_bar import ProgressBar
from metric_module.callbacks.shared_folder import SharedFolder

__all__ = [
    "EMA",
    "BeforeTraining",
    "CheckFigures",
    "ClassNeighbours",
    "CollapseGuard",
    "FreezeBackbone",
    "LastCheckpoint",
    "LastValidation",
    "MarginSchedule",
    "MinedTriplets",
    "ProgressBar",
    "SharedFolder",
]
