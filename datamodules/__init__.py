"""Data for metric learning: data modules, the P x K sampler, class-disjoint splits and keyed augmentation."""

from datamodules.augment import Augment
from datamodules.base import PKDataModule
from datamodules.emoji import EmojiDataModule
from datamodules.image_folder import ImageFolderDataModule
from datamodules.samplers import PKSampler, ShardedSampler
from datamodules.samples import SampleDataset, Samples, Source
from datamodules.splits import Split, fold_samples, split_classes

__all__ = [
    "Augment",
    "EmojiDataModule",
    "ImageFolderDataModule",
    "PKDataModule",
    "PKSampler",
    "SampleDataset",
    "Samples",
    "ShardedSampler",
    "Source",
    "Split",
    "fold_samples",
    "split_classes",
]
