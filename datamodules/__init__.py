"""Data for metric learning: data modules, the P x K sampler, class-disjoint splits and keyed augmentation."""

from datamodules.augment import Augment
from datamodules.base import PKDataModule
from datamodules.emoji import EmojiDataModule
from datamodules.samplers import PKSampler, ShardedSampler
from datamodules.samples import SampleDataset, Samples
from datamodules.splits import Split, split_classes

__all__ = [
    "Augment",
    "EmojiDataModule",
    "PKDataModule",
    "PKSampler",
    "SampleDataset",
    "Samples",
    "ShardedSampler",
    "Split",
    "split_classes",
]
