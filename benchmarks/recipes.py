"""Image recipes, compared with raw pixels and with pytorch-metric-learning's criterion, all else being the same.

    pip install -e '.[benchmarks,fonts]'
    python -m benchmarks.recipes emoji_verification --seeds 1 2
    python -m benchmarks.recipes fashion_mnist --seeds 1 2 3 --set datamodule.root=<folder>

Raw pixels are the inputs as they are, flattened. ``--sides before`` is the encoder before any training: of pretrained
weights, what they give as they are, through a linear head that is random. Figures are of the weights at the end of
training, on the test classes; nothing is chosen by them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.common import markdown, recipe
from benchmarks.learning import run
from metric_module.datamodule_facts import DataModuleFacts
from metric_module.report.closed_set import titled

SIDES = {
    "ours": "lightning-triplets",
    "peer": "pytorch-metric-learning",
    "pixels": "raw pixels",
    "before": "before training",
}
LEFT_OUT = ("loss", "queries", "pairs", "threshold", "interval")


def pixels(overrides: Sequence[str]) -> dict[str, float]:
    """Figures of the recipe's own evaluation, the inputs being the embeddings."""
    parts = recipe([*overrides, "distance=euclidean"])
    data, metric = parts.datamodule, parts.module.metric
    data.setup("test")
    groups = getattr(data, "groups", None)
    for batch in data.test_dataloader():
        of_batch = None if groups is None else groups[batch.index]
        metric.update(batch.inputs.flatten(1), batch.labels, batch.index, of_batch)
    figures: dict[str, float] = metric.compute()
    return figures


def before(overrides: Sequence[str]) -> dict[str, float]:
    """Figures of the encoder before any training."""
    parts = recipe(overrides)
    found = parts.trainer.test(parts.module, datamodule=parts.datamodule, verbose=False)[0]
    return {name.removeprefix("test/"): float(value) for name, value in found.items()}


def table(found: Mapping[str, Sequence[Mapping[str, float]]], title: str) -> str:
    """Means over the runs of each side, with maximum minus minimum in brackets, a row for each figure."""
    first = next(iter(found.values()))[0]
    names = [name for name in first if not any(word in name for word in LEFT_OUT)]
    rows = [[name, *(_cell([run[name] for run in runs]) for runs in found.values())] for name in names]
    return markdown([title, *(SIDES[side] for side in found)], rows)


def _cell(values: Sequence[float]) -> str:
    spread = f" ({max(values) - min(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def title(overrides: Sequence[str]) -> str:
    """Name the test set, and say so if its classes are trained on."""
    data = recipe(overrides).datamodule
    data.setup("test")
    return titled("test classes", DataModuleFacts(data).trained_classes("test"))


def main() -> None:
    """Measure one recipe, each side with each seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("--sides", nargs="+", choices=sorted(SIDES), default=["pixels", "ours", "peer"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--set", nargs="*", default=[], help="overrides of the recipe, for all sides")
    options = parser.parse_args()
    overrides = [f"experiment={options.experiment}", *options.set]
    found: dict[str, list[dict[str, float]]] = {}
    for side in options.sides:
        if side in {"pixels", "before"}:
            found[side] = [(pixels if side == "pixels" else before)(overrides)]
            continue
        found[side] = []
        for seed in options.seeds:
            figures, seconds = run("distance_weighted", seed, side == "peer", overrides)
            found[side].append(figures)
            print(f"{SIDES[side]}, seed {seed}: {seconds:.0f} s, MAP@R {figures['map_at_r']:.3f}", flush=True)
    print(table(found, title(overrides)))


if __name__ == "__main__":
    main()
