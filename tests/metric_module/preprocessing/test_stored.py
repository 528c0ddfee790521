"""Preprocessing as JSON: what was written is read again, and anything else is refused with one line."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from metric_module import UserError
from metric_module.preprocessing import ImageInput, Preprocessing, SeriesInput, TextInput, VectorInput, from_json

EACH = [
    ImageInput(64),
    ImageInput(28, channels=1, grey=True, resize="area", background=0, mean=0.4, std=0.3),
    TextInput(),
    VectorInput(5),
    SeriesInput((3, 100)),
    SeriesInput((3, 8, 9), "pixels"),
]


@pytest.mark.parametrize("preprocessing", EACH, ids=str)
def test_out_and_in_again(preprocessing: Preprocessing) -> None:
    text = preprocessing.to_json()
    assert from_json(text) == preprocessing
    assert json.loads(text)["version"] == 1 and "_target_" not in text and "metric_module" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected a JSON object (JSONDecodeError)"),
        ("[" * 100_000, "expected a JSON object (RecursionError)"),
        (None, "expected a JSON object (TypeError)"),
        ([1], "expected a JSON object, got a list"),
        ({"kind": "text"}, "expected version 1, got None; a newer version may read it"),
        ({"version": True, "kind": "text"}, "expected version 1, got True"),
        ({"version": 2, "kind": "text"}, "expected version 1, got 2"),
        (
            {"version": 1, "kind": "os.system"},
            "expected a kind of image, text, vector, series, towers, got 'os.system'",
        ),
        ({"version": 1, "kind": ["image"]}, "expected a kind of image, text, vector, series, towers, got ['image']"),
        ({"version": 1, "kind": "text", "_target_": "os.system"}, "unknown key '_target_' of text: allowed: none"),
        (
            {"version": 1, "kind": "image", "sise": 3},
            "unknown key 'sise' of image: did you mean 'size'? allowed: size, channels, grey, resize, background",
        ),
        ({"version": 1, "kind": "series"}, "series has no shape"),
        ({"version": 1, "kind": "series", "shape": 3}, "shape: expected a list of integers, got 3"),
        ({"version": 1, "kind": "series", "shape": [3.5]}, "shape: expected an integer >= 0, got 3.5"),
        ({"version": 1, "kind": "series", "shape": [3], "dtype": "object"}, "dtype: expected 'float32' or 'pixels'"),
        ({"version": 1, "kind": "vector", "size": "3"}, "size: expected an integer >= 1, got '3'"),
        ({"version": 1, "kind": "image", "size": 0}, "size: expected an integer >= 1, got 0"),
        ({"version": 1, "kind": "image", "size": 8, "channels": 2}, "channels: expected 1 or 3, got 2"),
        ({"version": 1, "kind": "image", "size": 8, "channels": 1}, "grey: expected True, got False"),
        ({"version": 1, "kind": "image", "size": 8, "grey": 1}, "grey: expected True or False, got 1"),
        ({"version": 1, "kind": "image", "size": 8, "resize": "x"}, "resize: expected 'bilinear' or 'area' or"),
        (
            {"version": 1, "kind": "image", "size": 8, "background": 256},
            "background: expected an integer from 0",
        ),
        ({"version": 1, "kind": "image", "size": 8, "mean": "0"}, "mean: expected a number that is finite, got '0'"),
        ({"version": 1, "kind": "image", "size": 8, "std": 0}, "std: expected a number > 0, got 0"),
        ({"version": 1, "kind": "image", "size": 8, "std": float("nan")}, "std: expected a number > 0, got nan"),
    ],
)
def test_anything_else_is_refused(content: Any, message: str) -> None:
    text: Any = content if isinstance(content, str) or content is None else json.dumps(content)
    with pytest.raises(UserError, match=f"^preprocessing: {re.escape(message)}"):
        from_json(text)
