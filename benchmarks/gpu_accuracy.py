"""Loss and gradient of every miner on a device, against float64 on the CPU.

Shapes: B = batch, D = embedding size.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch

from benchmarks.gpu_cases import MINERS, Figures, Settings
from benchmarks.mining_cases import MARGIN, Work, inputs
from metric_module import TripletCriterion
from metric_module.distances import Euclidean
from metric_module.encoders.base import EmbeddingHead

MODES = {"fp32": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
STEPS = 3  # every turn of the scheduled miner
LOSS_SCALE = 2.0**16  # where the gradient scaler of 16-mixed begins
LIMITS = {"loss_error": 0.01, "gradient_error": 0.1}  # what a few triplets chosen otherwise, by rounding, can explain


def accuracy(settings: Settings, name: str, mode: str) -> Figures:
    """Loss and gradient by the embeddings against the same criterion in float64 on the CPU, on the same embeddings.

    The embeddings come out of a linear layer, under autocast in the mixed modes, and then are in half precision unless
    the miner wants unit vectors; the gradient is rounded as they are. The errors are the largest of three steps.

    Returns:
        The smallest loss, and the relative errors of loss and gradient (its norm).

    Raises:
        RuntimeError: If a reference loss is 0, which would prove nothing, or an error is beyond any rounding.
    """
    device, dtype = settings.device, MODES[mode]
    loss = "soft" if name == "easy" else "hinge"  # easy triplets have no hinge loss
    ours, exact = (TripletCriterion(Euclidean(), MINERS[name](), MARGIN, loss).to(place) for place in (device, "cpu"))
    torch.manual_seed(0)
    encoder = EmbeddingHead(settings.dimension, settings.dimension, normalize=name == "distance_weighted").to(device)
    scale = LOSS_SCALE if dtype == torch.float16 else 1.0
    found: dict[str, list[float]] = {"loss": [], "loss_error": [], "gradient_error": []}
    for seed in range(STEPS):
        features, labels = inputs(Work(name, settings.accuracy_batch, settings.dimension), seed)  # (B, D), (B,)
        with nullcontext() if dtype is None else torch.autocast(device, dtype):
            embeddings = encoder(features.to(device)).detach().requires_grad_()  # (B, D)
            value = ours(embeddings, labels.to(device)).loss
        (gradient,) = torch.autograd.grad(scale * value, embeddings)  # (B, D)
        reference = embeddings.detach().cpu().double().requires_grad_()  # (B, D)
        expected = exact(reference, labels).loss
        (slope,) = torch.autograd.grad(expected, reference)  # (B, D)
        found["loss"].append(expected.item())
        found["loss_error"].append(abs(value.item() - expected.item()) / max(expected.item(), 1e-30))
        difference = gradient.cpu().double() / scale - slope  # (B, D)
        found["gradient_error"].append(float(difference.norm() / slope.norm().clamp(min=1e-30)))
    if min(found["loss"]) <= 0:
        raise RuntimeError(f"expected a reference loss > 0, got {min(found['loss'])}")
    worst = {key: max(found[key]) for key in LIMITS}
    if not all(worst[key] <= limit for key, limit in LIMITS.items()):
        raise RuntimeError(f"expected errors up to {LIMITS}, got {worst}")
    return {"loss": min(found["loss"]), **worst}
