"""A text model's folder: where it is, and what sentence-transformers wrote into it. Nothing in it is ever run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from metric_module.encoders.pretrained import find_path
from metric_module.errors import UserError

POOLINGS = ("mean", "cls", "max")
FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


class TextFolder(NamedTuple):
    """What a folder says.

    Attributes:
        path: Where ``config.json``, weights and tokenizer are.
        pooling: ``mean``, ``cls`` or ``max``.
        max_length: Most tokens of a text, or None.
        lower: Whether texts are lower-cased before they are tokenized.
    """

    path: Path
    pooling: str = "mean"
    max_length: int | None = None
    lower: bool = False


def find_model(name: str) -> Path:
    """The folder of a model; one that is named as on the Hugging Face hub, and is no folder here, is fetched.

    Of the hub's files only weights in safetensors, configurations and vocabularies are.

    Args:
        name: A folder, ``package:name/path`` inside an installed package, or a name on the hub.

    Raises:
        UserError: If there is no such folder or package, or the hub does not give it.
    """
    path = find_path("encoder.model", name)
    if path.is_dir():
        return path
    if name.startswith("package:") or not _HUB_NAME.fullmatch(name):
        raise UserError(f"encoder.model: no such folder: {path}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:  # of the network, of the hub, of its names
        raise UserError(
            f"encoder.model: no such folder: {name}; nor does the Hugging Face hub give it ({type(error).__name__})"
        ) from error


def read_folder(path: Path) -> TextFolder:
    """Read a folder of a Hugging Face model, or of a sentence-transformers model whose parts are ours too.

    Args:
        path: The folder.

    Raises:
        UserError: If a file is damaged, or the model has other parts than a transformer, a pooling by mean, first token
            or maximum, and a normalisation.
    """
    listed = path / "modules.json"
    if not listed.is_file():
        return TextFolder(path)
    try:
        parts = {str(part["type"]).rpartition(".")[2]: str(part["path"]) for part in _json(listed)}
    except (TypeError, KeyError) as error:
        raise UserError(
            f"encoder.model: {listed} is damaged: expected a list of parts, each with type and path"
        ) from error
    others = sorted(set(parts) - {"Transformer", "Pooling", "Normalize"})
    if others or "Transformer" not in parts:
        raise UserError(
            f"encoder.model: {path} is made of {', '.join(parts)}; expected Transformer, Pooling and Normalize alone"
        )
    folder = path / parts["Transformer"]
    settings = folder / "sentence_bert_config.json"
    known = _json(settings) if settings.is_file() else {}
    pooling = _pooling(path / parts["Pooling"] / "config.json") if "Pooling" in parts else "mean"
    return TextFolder(folder, pooling, known.get("max_seq_length"), bool(known.get("do_lower_case")))


def _pooling(path: Path) -> str:
    """The pooling of a configuration: one word, or in older ones a switch for each kind."""
    found = _json(path)
    word = found.get("pooling_mode")
    if word is None:
        old = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}
        on = [key for key, value in found.items() if key.startswith("pooling_mode_") and value]
        word = old.get(on[0], on[0]) if len(on) == 1 else ", ".join(on)
    if word not in POOLINGS:
        raise UserError(f"encoder.model: {path} pools by {word}; expected one of {', '.join(POOLINGS)}")
    return str(word)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"encoder.model: {path} cannot be read ({type(error).__name__})") from error
