"""Memory per image that is kept for the gradient, with and without ``encoder.grad_checkpointing``, for models of timm.

Run: python -m benchmarks.activations
"""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module.encoders import TimmEncoder

MODELS = (("resnet50", 128), ("tf_efficientnet_lite0", 128), ("vit_small_patch16_224", 224))
IMAGES = 8


def kept(encoder: TimmEncoder, images: Tensor) -> float:
    """Bytes that a forward pass keeps per image, weights left out."""
    weights = {value.data_ptr() for value in encoder.parameters()}
    found: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        """Note the size of a tensor that autograd saves, unless it is a weight."""
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        graph = encoder(images)
    del graph  # until here, so that no memory was used twice
    return sum(found.values()) / len(images)


def main() -> None:
    """Print a row for each model."""
    print("| model | pixels | MiB per image | with grad_checkpointing |\n|---|---|---|---|")
    for name, size in MODELS:
        images = torch.rand(IMAGES, 3, size, size)
        plain, sparing = (kept(TimmEncoder(name, grad_checkpointing=on).train(), images) for on in (False, True))
        print(f"| {name} | {size} | {plain / 2**20:.1f} | {sparing / 2**20:.1f} |")


if __name__ == "__main__":
    main()
