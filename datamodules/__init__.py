"""Data for metric learning: data modules, the P x K sampler, class-disjoint splits and keyed augmentation."""

from datamodules.arrays import ArraysDataModule
from datamodules.augmentation.pixels import Augment
from datamodules.base import PKDataModule
from datamodules.emoji.datamodule import EmojiDataModule
from datamodules.emoji.scenes_datamodule import EmojiScenesDataModule
from datamodules.glyphs.datamodule import GlyphDataModule
from datamodules.hugging_face import HuggingFaceDataModule
from datamodules.idx import IDXDataModule
from datamodules.image_folder import ImageFolderDataModule
from datamodules.manifest import ManifestDataModule
from datamodules.published.datamodule import PublishedDataModule
from datamodules.relations.base import PairDataModule
from datamodules.relations.captions import CaptionsDataModule
from datamodules.relations.data import PairData, Side
from datamodules.relations.interactions import InteractionsDataModule
from datamodules.relations.multi_label import MultiLabelDataModule
from datamodules.sampling.dataset import SampleDataset, Samples, Source
from datamodules.sampling.pk_sampler import PKSampler, ShardedSampler
from datamodules.sampling.relation_sampler import PairSampler
from datamodules.sampling.splits import Split, fold_samples, split_classes, split_samples
from datamodules.sources.texts import Texts
from datamodules.territories import TerritoriesDataModule

__all__ = [
    "ArraysDataModule",
    "Augment",
    "CaptionsDataModule",
    "EmojiDataModule",
    "EmojiScenesDataModule",
    "GlyphDataModule",
    "HuggingFaceDataModule",
    "IDXDataModule",
    "ImageFolderDataModule",
    "InteractionsDataModule",
    "ManifestDataModule",
    "MultiLabelDataModule",
    "PKDataModule",
    "PKSampler",
    "PairData",
    "PairDataModule",
    "PairSampler",
    "PublishedDataModule",
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
    "split_samples",
]
