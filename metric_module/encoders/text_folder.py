"""Locate a text model, and read the settings that sentence-transformers saved with it. No code of a model is run."""

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
    """Location and settings of a text model.

    Attributes:
        path: Folder of ``config.json``, the weights and the tokenizer.
        pooling: ``mean``, ``cls`` or ``max``.
        max_length: Maximum number of tokens of a text, or None.
        lower: Whether texts are lower-cased before they are tokenized.
    """

    path: Path
    pooling: str = "mean"
    max_length: int | None = None
    lower: bool = False


def find_model(name: str) -> Path:
    """Locate the folder of a model, and download it from the Hugging Face hub if there is no such folder here.

    Only weights in safetensors, configurations and vocabularies are downloaded.

    Args:
        name: A folder, ``package:name/path`` inside an installed package, or a name on the hub.

    Returns:
        The folder.

    Raises:
        UserError: If there is no such folder or package, and the download fails.
    """
    path = find_path("encoder.model", name)
    if path.is_dir():
        return path
    if name.startswith("package:") or not _HUB_NAME.fullmatch(name):
        raise UserError(f"encoder.model: no such folder: {path}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:  # the network, the hub and invalid names raise many kinds
        raise UserError(
            f"encoder.model: no such folder: {name}; the download from the Hugging Face hub failed as well "
            f"({type(error).__name__})"
        ) from error


def read_folder(path: Path) -> TextFolder:
    """Read the settings in the folder of a model of Hugging Face or sentence-transformers.

    Classes that ``modules.json`` names are never imported: only the last word of each name is compared.

    Args:
        path: The folder.

    Returns:
        The settings; the defaults if there is no ``modules.json``.

    Raises:
        UserError: If a file is damaged, or the model has modules other than a transformer, a pooling by mean, first
            token or maximum, and a normalisation.
    """
    listed = path / "modules.json"
    if not listed.is_file():
        return TextFolder(path)
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    try:
        found = json.loads(listed.read_text(encoding="utf-8"))
        modules = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in found}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"encoder.model: {listed} is damaged: expected a list of modules, each with type and path"
        ) from error
    if set(modules) - {"Transformer", "Pooling", "Normalize"} or "Transformer" not in modules:
        raise UserError(
            f"encoder.model: {path} consists of {', '.join(modules)}; expected only Transformer, Pooling and Normalize"
        )
    settings = _load_config(Transformer, path, modules["Transformer"])
    pooling = _load_config(Pooling, path, modules["Pooling"]).get("pooling_mode") if "Pooling" in modules else "mean"
    if pooling not in POOLINGS:
        raise UserError(
            f"encoder.model: {path / modules['Pooling']} pools by {pooling}; expected one of {', '.join(POOLINGS)}"
        )
    lower = bool(settings.get("do_lower_case"))
    return TextFolder(path / modules["Transformer"], pooling, settings.get("max_seq_length"), lower)


def _load_config(kind: Any, path: Path, subfolder: str) -> dict[str, Any]:
    """Read the configuration of a module of sentence-transformers; empty if it has none."""
    try:
        config: dict[str, Any] = kind.load_config(str(path), subfolder=subfolder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"encoder.model: {path / subfolder / kind.config_file_name} cannot be read ({type(error).__name__})"
        ) from error
    return config
