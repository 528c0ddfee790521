"""Encoders: from inputs to embeddings."""

from metric_module.encoders.base import EmbeddingHead, Encoder
from metric_module.encoders.char_conv_net import CharConvNet
from metric_module.encoders.conv_net import ConvNet
from metric_module.encoders.history import HistoryEncoder
from metric_module.encoders.lookup import LookupEncoder
from metric_module.encoders.mlp import MLP
from metric_module.encoders.pixel_conv_net import PixelConvNet
from metric_module.encoders.text import TextEncoder
from metric_module.encoders.time_series import SeriesConvNet
from metric_module.encoders.timm import TimmEncoder
from metric_module.encoders.towers import MultiEncoder

__all__ = [
    "MLP",
    "CharConvNet",
    "ConvNet",
    "EmbeddingHead",
    "Encoder",
    "HistoryEncoder",
    "LookupEncoder",
    "MultiEncoder",
    "PixelConvNet",
    "SeriesConvNet",
    "TextEncoder",
    "TimmEncoder",
]
