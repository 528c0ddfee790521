"""Instances of composed emoji scenes, against baselines: ``python -m benchmarks.instances --run <run> [<run> ...]``.

Every method gets the true foreground and must divide it into instances, without their number. ``ari`` is the
adjusted Rand index over the foreground pixels of every second row and column, mean over scenes. Thresholds are the best
on val, applied to test.

Shapes: N = pixels, H = side of a scene.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from scipy.cluster import hierarchy
from torch import Tensor

from benchmarks.common import markdown, recipe
from benchmarks.learning import fit
from benchmarks.recipes import SIDES
from datamodules.emoji.scenes_datamodule import EmojiScenesDataModule, ScenePixels
from metric_module import Encoder
from metric_module.encoders.base import embed
from metric_module.evaluation import adjusted_rand_index, instance_metrics
from metric_module.storage.checkpoints import load_checkpoint
from metric_module.tasks.checkpoint import load_state

COLOURS = np.array(
    [
        [40, 40, 40],
        [230, 75, 60],
        [60, 140, 220],
        [90, 190, 90],
        [240, 190, 60],
        [160, 90, 200],
        [60, 200, 200],
        [150, 110, 80],
        [240, 140, 190],
        [170, 170, 170],
    ],
    np.uint8,
)
SHOWN = 8


def main() -> None:
    """Measure the baselines, runs of the recipe, and with seeds both criteria; print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="*", default=[], help="folders of runs of experiment=instances")
    parser.add_argument("--figure", type=Path, help="where to draw some test scenes, with the last run")
    parser.add_argument(
        "--seeds", nargs="*", type=int, default=[], help="train with ours and with the peer's criterion"
    )
    parser.add_argument("--set", nargs="*", default=[], help="overrides of the recipe, for both sides")
    arguments = parser.parse_args()
    data = EmojiScenesDataModule()
    rows = [["connected components of the foreground", *(f"{connected(data, split):.3f}" for split in ("val", "test"))]]
    sides: dict[str, Callable[[Tensor], Tensor]] = {
        "colour of the pixel": lambda ids: describe(data, ids)[:, :3],
        "colour and place of the pixel": lambda ids: describe(data, ids),
        "encoder before training": partial(encode, data, load(None)),
    }
    for run in arguments.run:
        sides[f"trained, {Path(run).name}"] = partial(encode, data, load(run))
    for name, vectors in sides.items():
        val, test, threshold = figures(data, vectors)
        rows.append([name, f"{val:.3f}", f"{test:.3f}"])
    for side in ("ours", "peer") if arguments.seeds else ():
        found = [trained(data, seed, side == "peer", arguments.set) for seed in arguments.seeds]
        rows.append([SIDES[side], *(f"{statistics.mean(of_split):.3f}" for of_split in zip(*found, strict=True))])
    print(markdown(["", "ari, val", "ari, test"], rows))
    if arguments.figure:
        draw(arguments.figure, load(arguments.run[-1]), threshold)


def trained(data: EmojiScenesDataModule, seed: int, peer: bool, overrides: Sequence[str]) -> tuple[float, float]:
    """Indices on val and test of the weights at the end of training, with our criterion or the peer's."""
    parts, seconds = fit("distance_weighted", seed, peer, ["experiment=instances", *overrides])
    val, test, _ = figures(data, partial(encode, data, parts.module.encoder.eval()))
    side = "peer" if peer else "ours"
    print(f"{side}, seed {seed}: {seconds:.0f} s, ari {val:.3f} on val, {test:.3f} on test", flush=True)
    return val, test


def figures(data: EmojiScenesDataModule, side: Callable[[Tensor], Tensor]) -> tuple[float, float, float]:
    """Indices on val and test, and the threshold, the best on val; a side gives vectors ``(N, D)`` of pixels by id."""

    def of(split: str, threshold: float | None) -> dict[str, float]:
        """Measure one split; without a threshold the best one is chosen."""
        ids, samples = data.samples.splits[split], data.samples
        assert samples.groups is not None
        return instance_metrics(side(ids), samples.labels[ids], groups=samples.groups[ids], threshold=threshold)

    val = of("val", None)
    return val["ari"], of("test", val["best_threshold"])["ari"], val["best_threshold"]


def connected(data: EmojiScenesDataModule, split: str) -> float:
    """Mean index of the connected components (of pixels that share a side) of the whole foreground."""
    ids, source = data.samples.splits[split], pixels(data)
    where, labels = source.where[ids], data.samples.labels[ids]  # (N, 3), (N,)
    found = []
    for scene in torch.unique(where[:, 0]).tolist():
        mine = where[:, 0] == scene  # (N,)
        parts, _ = ndimage.label(source.scenes.masks[scene].numpy() > 0)  # (H, H)
        rows, columns = where[mine, 1].numpy(), where[mine, 2].numpy()
        found.append(adjusted_rand_index(labels[mine].numpy(), parts[rows, columns]))
    return float(np.mean(found))


def describe(data: EmojiScenesDataModule, ids: Tensor) -> Tensor:
    """Colour and place of pixels, each in [-1, 1], ``(N, 5)``."""
    scene, row, column = pixels(data).where[ids].unbind(dim=1)  # (N,), (N,), (N,)
    colour = pixels(data).scenes.images[scene, :, row, column].float() / 127.5 - 1  # (N, 3)
    place = torch.stack([row, column], dim=1) / (data.image_size - 1) * 2 - 1  # (N, 2)
    return torch.cat([colour, place], dim=1)


def encode(data: EmojiScenesDataModule, encoder: Encoder, ids: Tensor) -> Tensor:
    """Embeddings of pixels, ``(N, D)``."""
    with torch.no_grad():
        return torch.cat([embed(encoder, data.samples.fetch(part)) for part in torch.split(ids, 4096)])


def load(run: str | None) -> Encoder:
    """The encoder of a run with its best weights; None: before training."""
    module = recipe(["experiment=instances"]).module.eval()
    if run is not None:
        path = f"{run}/checkpoints/best.ckpt"
        load_state(module, load_checkpoint(path), path)
    return module.encoder


def pixels(data: EmojiScenesDataModule) -> ScenePixels:
    """Scenes and places of the data."""
    source = data.samples.fetch
    assert isinstance(source, ScenePixels)
    return source


def draw(path: Path, encoder: Encoder, threshold: float) -> None:
    """Draw the first test scenes: the picture, the instances, what is connected, and what was found."""
    data = EmojiScenesDataModule(scenes=(1, 1, SHOWN), grid=1)
    source, ids = pixels(data), data.samples.splits["test"]
    strips = []
    for number in range(2, 2 + SHOWN):
        mine = ids[source.where[ids, 0] == number]  # (n,)
        tree = hierarchy.linkage(encode(data, encoder, mine).numpy(), "average")
        found = np.zeros_like(source.scenes.masks[number].numpy())
        rows, columns = source.where[mine, 1].numpy(), source.where[mine, 2].numpy()
        found[rows, columns] = by_size(hierarchy.fcluster(tree, threshold, "distance"))
        truth = source.scenes.masks[number].numpy()
        parts, _ = ndimage.label(truth > 0)
        picture = source.scenes.images[number].permute(1, 2, 0).numpy()
        strips.append(np.concatenate([picture, *(COLOURS[np.minimum(part, 9)] for part in (truth, parts, found))]))
    sheet = Image.fromarray(np.concatenate(strips, axis=1))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(path, optimize=True)


def by_size(found: np.ndarray) -> np.ndarray:
    """Renumber clusters by size: the largest is 1."""
    _, place, sizes = np.unique(found, return_inverse=True, return_counts=True)
    return 1 + np.argsort(np.argsort(-sizes, kind="stable"), kind="stable")[place]


if __name__ == "__main__":
    main()
