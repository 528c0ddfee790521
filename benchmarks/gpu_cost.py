"""Time, memory, operators and host synchronisations on a device.

Shapes: B = batch, D = embedding size, A = rows at once, S = pixels of a side, N = items to search.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import recipe
from benchmarks.gpu_cases import MINERS, Figures, Settings
from benchmarks.gpu_counts import CountSteps, counting
from benchmarks.mining_cases import MARGIN, Work, inputs
from metric_module import TripletCriterion
from metric_module.distances import Euclidean
from metric_module.evaluation import retrieval_metrics
from metric_module.functional import unit

WARMUP = 3
FLOOR_CELLS = 1 << 26  # of B x B that the floor computes at once


def criterion_cost(settings: Settings, name: str, batch: int) -> Figures:
    """Time, operators, host synchronisations and peak memory of the criterion alone, forward and backward.

    Returns:
        Also the time of the floor, the three matrix products of the distances and of their gradient.
    """
    data = inputs(Work(name, batch, settings.dimension))
    embeddings, labels = data.embeddings.to(settings.device), data.labels.to(settings.device)  # (B, D), (B,)
    criterion = TripletCriterion(Euclidean(), MINERS[name](), MARGIN, census=False).to(settings.device)

    def step() -> None:
        """Forward and backward."""
        leaf = embeddings.detach().requires_grad_()  # (B, D)
        torch.autograd.grad(criterion(leaf, labels).loss, leaf)

    repeats = settings.repeats if batch <= 4096 else 3
    found = timed(settings.device, step, repeats)
    floor = timed(settings.device, _floor(embeddings), repeats)["ms"]
    with counting(settings.device) as counts:
        step()
    return {**found, "floor_ms": floor, "operators": counts.operators, "syncs": counts.syncs}


def peer_cost(settings: Settings, batch: int) -> Figures:
    """Time and peak memory of semi-hard mining and the triplet loss of pytorch-metric-learning, or why it failed."""
    from pytorch_metric_learning import distances, losses, miners

    data = inputs(Work("semihard", batch, settings.dimension))
    embeddings, labels = data.embeddings.to(settings.device), data.labels.to(settings.device)  # (B, D), (B,)
    plain = distances.LpDistance(normalize_embeddings=False)
    miner: Any = miners.TripletMarginMiner(MARGIN, type_of_triplets="semihard", distance=plain)
    criterion: Any = losses.TripletMarginLoss(MARGIN, distance=plain)

    def step() -> None:
        """Forward and backward."""
        leaf = embeddings.detach().requires_grad_()  # (B, D)
        torch.autograd.grad(criterion(leaf, labels, miner(leaf, labels)), leaf)

    try:
        return timed(settings.device, step, min(5, settings.repeats))
    except RuntimeError as error:  # out of memory, or a tensor too large for an operator: no fault of this project
        return {"note": f"pytorch-metric-learning failed: {str(error).splitlines()[0]}"}


def _floor(embeddings: Tensor) -> Callable[[], None]:
    """The matrix products that no exact mining can do without, of embeddings ``(B, D)``; in blocks, if B is large."""
    batch = len(embeddings)
    rows = max(1, min(batch, FLOOR_CELLS // batch))
    weight = torch.randn(rows, batch, device=embeddings.device)  # (A, B)

    def step() -> None:
        """Distances, and their gradient by either side."""
        for part in torch.split(embeddings, rows):
            _ = part @ embeddings.T  # (A, B)
            _ = weight[: len(part)] @ embeddings  # (A, D)
            _ = weight[: len(part)].T @ part  # (B, D)

    return step


def step_counts(settings: Settings, name: str) -> Figures:
    """Operators and host synchronisations of a training step of the default recipe, the median of a few steps."""
    accelerator = "gpu" if settings.device == "cuda" else "cpu"
    words = [
        f"miner={name}",
        f"trainer.accelerator={accelerator}",
        "trainer.max_steps=6",
        "trainer.limit_val_batches=0",
    ]
    parts, counter = recipe([*words, *settings.run, "trainer.max_epochs=-1"]), CountSteps(settings.device)
    parts.trainer.callbacks.append(counter)  # type: ignore[attr-defined]
    try:
        parts.trainer.fit(parts.module, datamodule=parts.datamodule)
    finally:
        torch.use_deterministic_algorithms(False)  # the recipe's trainer asked for them
    late = counter.steps[WARMUP:]
    medians = [statistics.median([getattr(one, key) for one in late]) for key in ("operators", "syncs")]
    return {"operators": medians[0], "syncs": medians[1], "steps": len(late)}


def mining_share(settings: Settings, name: str) -> Figures:
    """Share of a training step of an image encoder that mining takes: the criterion against the mean as the loss."""
    import timm

    device, classes = settings.device, settings.encoder_classes
    torch.manual_seed(0)
    model = timm.create_model(settings.encoder, pretrained=False, num_classes=128)
    model = model.to(device).to(memory_format=torch.channels_last).train()
    images = torch.randn(4 * classes, 3, settings.pixels, settings.pixels, device=device)  # (B, 3, S, S)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(classes, device=device).repeat_interleave(4)  # (B,)
    criterion = TripletCriterion(Euclidean(), MINERS[name](), MARGIN).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step(mines: bool) -> None:
        """One step of training."""
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            embeddings = unit(model(images))  # (B, D)
            loss = criterion(embeddings, labels).loss if mines else embeddings.mean()
        loss.backward()
        optimizer.step()

    # The two take turns, so that a change of the clock rate of the device meets both.
    sides = [partial(step, mines) for mines in (False, True)]
    turns = [
        [timed(device, side, 1, warmup=0) for side in sides] for _ in range(WARMUP + max(1, settings.repeats // 2))
    ]
    late = turns[WARMUP:]
    mean, whole = (statistics.median([float(both[side]["ms"]) for both in late]) for side in (0, 1))
    peak = {key: value for key, value in late[0][1].items() if key != "ms"}
    return {"step_ms": whole, "mean_step_ms": mean, "mining_share": 1 - mean / whole, **peak}


def exact_retrieval(settings: Settings) -> Figures:
    """Time and peak memory of the retrieval figures, and how far those of a part are from the CPU's."""
    data = inputs(Work("all", settings.items, settings.items_dimension))
    rows, labels = data.embeddings.to(settings.device), data.labels.to(settings.device)  # (N, D), (N,)
    few = data.labels < 1250  # (N,), whole classes
    here = retrieval_metrics(rows[few.to(rows.device)], labels[few.to(rows.device)])
    there = retrieval_metrics(data.embeddings[few], data.labels[few])
    apart = max(abs(here[key] - there[key]) for key in ("recall_at_1", "r_precision", "map_at_r", "map"))
    figures: dict[str, float] = {}
    found = timed(settings.device, lambda: figures.update(retrieval_metrics(rows, labels)), 1, warmup=0)
    return {**found, "map_at_r": figures["map_at_r"], "apart_from_cpu": apart}


def timed(device: str, step: Callable[[], None], repeats: int, warmup: int = WARMUP) -> Figures:
    """Median of the milliseconds of a step; on CUDA also its peak of memory beyond what was in use before, in MB.

    Args:
        device: ``"cuda"`` or ``"cpu"``.
        step: What is timed.
        repeats: How often.
        warmup: Calls before.
    """
    cuda = device == "cuda"
    wait: Callable[[], None] = torch.cuda.synchronize if cuda else lambda: None
    for _ in range(warmup):
        step()
    wait()
    before = torch.cuda.memory_allocated() if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        step()
        wait()
        seconds.append(time.perf_counter() - start)
    peak: Figures = {"peak_mb": (torch.cuda.max_memory_allocated() - before) / 2**20} if cuda else {}
    return {"ms": 1e3 * statistics.median(seconds), **peak}
