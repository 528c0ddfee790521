"""Data for metric learning: data modules, the P x K sampler, class-disjoint splits and keyed augmentation."""

from datamodules.augment import Augment
from datamodules.base import PKDataModule
from datamodules.captions import CaptionsDataModule
from datamodules.emoji import EmojiDataModule
from datamodules.emoji_scenes import EmojiScenesDataModule
from datamodules.image_folder import ImageFolderDataModule
from datamodules.interactions import InteractionsDataModule
from datamodules.multi_label import MultiLabelDataModule
from datamodules.pair_base import PairDataModule
from datamodules.pair_data import PairData, Side
from datamodules.pair_sampler import PairSampler
from datamodules.samplers import PKSampler, ShardedSampler
from datamodules.samples import SampleDataset, Samples, Source
from datamodules.splits import Split, fold_samples, split_classes
from datamodules.territories import TerritoriesDataModule
from datamodules.texts import Texts

__all__ = [
    "Augment",
    "CaptionsDataModule",
    "EmojiDataModule",
    "EmojiScenesDataModule",
    "ImageFolderDataModule",
    "InteractionsDataModule",
    "MultiLabelDataModule",
    "PKDataModule",
    "PKSampler",
    "PairData",
    "PairDataModule",
    "PairSampler",
    "SampleDataset",
    "Samples",
    "ShardedSampler",
    "Side",
    "Source",
    "Split",
    "TerritoriesDataModule",
    "Texts",
    "fold_samples",
    "split_classes",
]
