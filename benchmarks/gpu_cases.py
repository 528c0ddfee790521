"""Sizes of everything that ``benchmarks.gpu`` measures, and the miners that it checks.

Shapes: B = batch, D = embedding size, S = pixels of a side, N = items to search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from metric_module.miners import (
    All,
    BatchHard,
    DistanceWeighted,
    Easy,
    EasyPositive,
    Hard,
    Miner,
    Random,
    Scheduled,
    Semihard,
    SemihardNearest,
)

Figures = dict[str, float | int | bool | str]
"""Figures that a case measures, by name."""

MINERS: dict[str, Callable[[], Miner]] = {
    "all": All,
    "batch_hard": BatchHard,
    "distance_weighted": DistanceWeighted,
    "easy": Easy,
    "easy_positive": EasyPositive,
    "facenet": lambda: SemihardNearest(pick="random"),
    "hard": Hard,
    "random": Random,
    "scheduled": lambda: Scheduled([All(), Semihard(), Hard()], starts=[0, 1, 2]),
    "semihard": Semihard,
    "semihard_nearest": SemihardNearest,
}
"""By the name of the option of the command line."""


@dataclass(frozen=True)
class Settings:
    """Sizes of everything that is measured.

    Attributes:
        device: ``"cuda"`` or ``"cpu"``.
        accuracy_batch: B of the comparison with float64.
        batches: B of the criterion alone.
        dimension: D of the criterion alone.
        peer_batch: Largest B of pytorch-metric-learning, whose memory grows with the cube of it.
        repeats: How often everything is timed; the largest batches less often.
        encoder: Name of the image encoder in timm.
        pixels: S.
        encoder_classes: Classes in a batch of images, four images each.
        items: N of the exact retrieval.
        items_dimension: D of the exact retrieval.
        run: Words for every training run.
    """

    device: str = "cuda"
    accuracy_batch: int = 256
    batches: tuple[int, ...] = (128, 1024, 2048, 4096, 32768)
    dimension: int = 128
    peer_batch: int = 2048
    repeats: int = 20
    encoder: str = "resnet50"
    pixels: int = 224
    encoder_classes: int = 64
    items: int = 200_000
    items_dimension: int = 128
    run: tuple[str, ...] = ()


SMALL = Settings(
    device="cpu",
    accuracy_batch=64,
    batches=(64, 256),
    dimension=32,
    repeats=3,
    encoder="resnet18",
    pixels=32,
    encoder_classes=4,
    items=2000,
    items_dimension=32,
    run=(
        "report=false",
        "trainer.accelerator=cpu",
        "trainer.limit_train_batches=4",
        "trainer.limit_val_batches=1",
        "trainer.limit_test_batches=1",
        "datamodule.image_size=16",
        "datamodule.classes_per_batch=8",
        "datamodule.eval_batch_size=128",
    ),
)
