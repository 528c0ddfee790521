"""Readers of published benchmark data sets, each in its published folder layout."""

from datamodules.published.cars import Cars
from datamodules.published.cub import CUB
from datamodules.published.in_shop import InShop
from datamodules.published.lfw import LFW
from datamodules.published.listing import Listing, Reader
from datamodules.published.market import Market
from datamodules.published.omniglot import Omniglot
from datamodules.published.sop import SOP

__all__ = ["CUB", "LFW", "SOP", "Cars", "InShop", "Listing", "Market", "Omniglot", "Reader"]
