"""Trained encoders: read from the folder of a run, from a checkpoint, or from an exported folder.

Every file is untrusted: weights are plain tensors, settings are plain values, and only classes that the allow-list of
:mod:`metric_module.config.trust` permits are built.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from torch import Tensor, nn

from metric_module.config.arguments import check_arguments, locate
from metric_module.config.instances import build, check_kind
from metric_module.config.plain import check_size
from metric_module.config.renamed import rename_targets
from metric_module.config.trust import leaves
from metric_module.distances import Distance
from metric_module.errors import UserError
from metric_module.preprocessing import Preprocessing, from_json
from metric_module.preprocessing.stored import json_object
from metric_module.storage.checkpoints import map_checkpoint, newest_checkpoint
from metric_module.storage.weights import load_tensors, read_tensors, without_compile

CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""Files of an exported folder."""

INSIDE = "folder:"
"""Beginning of a path inside an exported folder, among the arguments of its encoder."""

_LONGEST = 10_000_000  # characters of a JSON file that are read

Figures = dict[str, dict[str, float]]


class Trained(NamedTuple):
    """A trained encoder, and how it was used.

    Attributes:
        encoder: The encoder, on the CPU, in evaluation mode.
        distance: The distance of the training.
        preprocessing: How one item becomes an encoder input; None if the data module did not define it.
        threshold: Distance up to which two samples count as the same; None if there is none.
        figures: Figures by split and name, as in ``metrics.json``; empty if they are not known.
        config: Plain content of the groups ``encoder`` and ``distance``, and the ``_target_`` of ``datamodule``.
    """

    encoder: nn.Module
    distance: Distance
    preprocessing: Preprocessing | None
    threshold: float | None
    figures: Figures
    config: dict[str, Any]


def read_trained(path: str | Path) -> Trained:
    """Read a trained encoder.

    Args:
        path: Folder of a run (its best checkpoint, otherwise its newest), a checkpoint, or a folder written by
            ``task=export``.

    Raises:
        UserError: If there is nothing to read, a file is damaged, or a class in it is neither part of this project nor
            trusted.
    """
    place = Path(path)
    if (place / WEIGHTS).is_file():
        return _read_exported(place)
    if place.suffix == ".safetensors":
        raise UserError(f"{place}: a file of weights does not say how the encoder is built; give its folder")
    checkpoint = _checkpoint_in(place) if place.is_dir() else place
    if place.is_dir() and not checkpoint.is_file():
        raise UserError(f"{place}: no checkpoint in it (no {checkpoint}); give the folder of a finished training")
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint}: no such file; expected the folder of a run, a checkpoint or an exported folder")
    found = map_checkpoint(checkpoint)
    config = found.get("config")
    if not isinstance(config, dict):
        raise UserError(
            f"{checkpoint}: the checkpoint does not say how its encoder is built, as it was not written by run.py; "
            "build the encoder, load its weights, and give it to Embedder(encoder, distance, preprocessing)"
        )
    state = without_compile(found["state_dict"])
    tensors = {name.removeprefix("criterion."): value for name, value in state.items()}
    folder = checkpoint.parent.parent
    own = checkpoint == _checkpoint_in(folder)  # the figures of a folder are those of this checkpoint alone
    figures = _json(folder / "metrics.json") if own and (folder / "metrics.json").is_file() else {}
    return _built(str(checkpoint), config, tensors, {**found, "figures": figures})


def _checkpoint_in(folder: Path) -> Path:
    """Return the best checkpoint in the folder of a run, otherwise the newest one."""
    best = folder / "checkpoints" / "best.ckpt"
    return best if best.is_file() else newest_checkpoint(folder / "checkpoints") or best


def _read_exported(folder: Path) -> Trained:
    about = _json(folder / CONFIG)
    check_size(str(folder / CONFIG), about)
    config = _inside(about.get("config"), folder.resolve())
    preprocessing = about.get("preprocessing")
    text = None if preprocessing is None else json.dumps(preprocessing)
    tensors, _ = read_tensors(folder / WEIGHTS, str(folder))
    return _built(str(folder), config, tensors, {**about, "preprocessing": text})


def _inside(node: Any, folder: Path) -> Any:
    """Replace paths inside an exported folder by whole paths."""
    if isinstance(node, Mapping):
        return {key: _inside(value, folder) for key, value in node.items()}
    if not isinstance(node, str) or not node.startswith(INSIDE):
        return node
    path = (folder / node.removeprefix(INSIDE)).resolve()
    if not path.is_relative_to(folder):
        raise UserError(f"{folder / CONFIG}: expected paths inside the folder, got {node!r}")
    return str(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            return json_object(str(path), file.read(_LONGEST))
    except (OSError, UnicodeError) as error:
        raise UserError(f"{path}: expected a JSON object ({type(error).__name__})") from error


def _built(where: str, config: Any, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Trained:
    """Build encoder and distance, load their tensors, and check everything else."""
    groups = {name: _checked(where, name, config) for name in ("encoder", "distance")}
    data = config.get("datamodule")
    groups["datamodule"] = {"_target_": str(data.get("_target_"))} if isinstance(data, Mapping) else {}
    encoder: nn.Module = build("encoder", without_weights(groups["encoder"]), nn.Module)
    distance: Distance = build("distance", groups["distance"], Distance)
    for name, module in (("encoder", encoder), ("distance", distance)):
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        load_tensors(module, own, where)
        module.eval().requires_grad_(False)
    text, threshold = about.get("preprocessing"), about.get("threshold")
    if threshold is not None and (type(threshold) is not float or not math.isfinite(threshold)):
        raise UserError(f"{where}: threshold: expected a number or null, got {threshold!r}")
    preprocessing = None if text is None else from_json(text)
    figures = _checked_figures(where, about.get("figures", {}))
    return Trained(encoder, distance, preprocessing, threshold, figures, groups)


def _checked(where: str, name: str, config: Any) -> dict[str, Any]:
    """Return a group of a configuration from a file, once its names and values are checked."""
    node = config.get(name) if isinstance(config, Mapping) else None
    if not isinstance(node, dict):
        raise UserError(f"{where}: {name}: expected a group with a _target_, got {node!r}")
    check_size(where, node)
    for path, _, value in leaves(name, node):
        if "${" in str(value):
            raise UserError(f"{where}: {path}: expected a plain value, got {value!r}")
    holder = OmegaConf.create({name: node})
    rename_targets(holder)
    plain: dict[str, Any] = OmegaConf.to_container(holder)[name]  # type: ignore[index, call-overload, assignment]
    check_kind(name, plain.get("_target_"), Distance if name == "distance" else nn.Module)
    check_arguments(name, plain)
    return plain


def without_weights(node: Any) -> Any:
    """Drop the initial weights from the arguments of an encoder, and of the encoders inside it."""
    if not isinstance(node, Mapping):
        return node
    kind = locate("encoder._target_", node["_target_"]) if "_target_" in node else None
    initial: Mapping[str, Any] = getattr(kind, "initial_weights", {})
    return {key: initial[key] if key in initial else without_weights(value) for key, value in node.items()}


def _checked_figures(where: str, figures: Any) -> Figures:
    """Return figures by split and name; null becomes NaN."""
    try:
        return {
            stage: {name: math.nan if value is None else float(value) for name, value in row.items()}
            for stage, row in figures.items()
        }
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: figures: expected numbers by split and name, got {figures!r:.99}") from error
