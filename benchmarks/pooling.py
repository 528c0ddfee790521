"""Compare the last layer of a pretrained network with every stage pooled, before any training.

    pip install -e '.[pretrained]'
    python -m benchmarks.pooling --size 96

EfficientNet-Lite0 with ImageNet weights on the validation classes of emoji, without a head: each embedding is the
vector that ``encoder=timm`` hands to its head, scaled to length one. Figures are R@1 and MAP@R.
"""

from __future__ import annotations

import argparse
from typing import Any

from torch import nn

from benchmarks.common import markdown, recipe


def figures(pool_stages: bool, size: int) -> dict[str, float]:
    """Evaluate the features that reach the head."""
    overrides = [f"encoder.pool_stages={str(pool_stages).lower()}", f"datamodule.image_size={size}"]
    parts = recipe(["experiment=emoji_pretrained", *overrides])
    encoder: Any = parts.module.encoder
    features = encoder.head.linear.in_features
    encoder.embedding_dim, encoder.head.linear = features, nn.Linear(features, features, bias=False)
    nn.init.eye_(encoder.head.linear.weight)
    found = parts.trainer.validate(parts.module, parts.datamodule, verbose=False)[0]
    return {name: float(value) for name, value in found.items()}


def main() -> None:
    """Evaluate both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96, help="image size in pixels")
    size = parser.parse_args().size
    rows = []
    for name, pool_stages in (("the last layer", False), ("every stage", True)):
        found = figures(pool_stages, size)
        rows.append([name, *(f"{found[f'val/{figure}']:.3f}" for figure in ("recall_at_1", "map_at_r"))])
    print(markdown(["features", "R@1", "MAP@R"], rows))


if __name__ == "__main__":
    main()
