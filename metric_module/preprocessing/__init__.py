"""Reading of one item (a file, a picture, a text, an array) as an encoder input, storable as plain JSON."""

from metric_module.preprocessing.arrays import SeriesInput, VectorInput
from metric_module.preprocessing.base import Preprocessing
from metric_module.preprocessing.images import ImageInput
from metric_module.preprocessing.stored import from_json
from metric_module.preprocessing.texts import TextInput
from metric_module.preprocessing.towers import TowersInput

__all__ = ["ImageInput", "Preprocessing", "SeriesInput", "TextInput", "TowersInput", "VectorInput", "from_json"]
