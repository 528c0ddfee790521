"""Images per second of ``Trainer.fit`` against a bare PyTorch loop with the same encoder, criterion and data.

    python -m benchmarks.throughput --steps 30 --rounds 5

Both train the default recipe. They take turns in one process, on the same batches; the ratio is taken round by round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader
from typing_extensions import override

from benchmarks.common import markdown, peak_megabytes, recipe
from metric_module import Batch

WARMUP = 3


class Clock(Callback):
    """Seconds from the end of the warm-up to the end of the last batch."""

    def __init__(self) -> None:
        self.start = self.seconds = 0.0

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start after the warm-up; note the time passed after each later batch."""
        if trainer.global_step == WARMUP:
            self.start = time.perf_counter()
        self.seconds = time.perf_counter() - self.start


def framework(steps: int, overrides: list[str]) -> float:
    """Images per second of ``Trainer.fit``, logging as it does by default."""
    parts = recipe([f"trainer.max_steps={steps + WARMUP}", "trainer.limit_val_batches=0", *overrides])
    clock = Clock()
    parts.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    parts.trainer.fit(parts.module, datamodule=parts.datamodule)
    return steps * batch_size(parts.datamodule) / clock.seconds


def bare(steps: int, overrides: list[str]) -> float:
    """Images per second of a loop written by hand."""
    parts = recipe(overrides)
    data: Any = parts.datamodule
    encoder, criterion = parts.module.encoder.train(), parts.module.criterion.train()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    data.setup("fit")
    loader: DataLoader[Batch] = data.train_dataloader()
    start = 0.0
    for number, (epoch, batch) in enumerate(islice(forever(loader), steps + WARMUP)):
        augmented = data.augment_batch(batch, epoch)
        optimizer.zero_grad()
        loss = criterion(encoder(augmented.inputs), augmented.labels, census=False).loss
        loss.backward()
        optimizer.step()
        if number == WARMUP - 1:
            start = time.perf_counter()
    return steps * batch_size(data) / (time.perf_counter() - start)


def forever(loader: DataLoader[Batch]) -> Iterator[tuple[int, Batch]]:
    """Epoch and batch, epoch after epoch."""
    for epoch in count():
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for batch in loader:
            yield epoch, batch


def batch_size(data: Any) -> int:
    """Images in a batch."""
    return int(data.classes_per_batch * data.samples_per_class)


def main() -> None:
    """Take turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("overrides", nargs="*", help="of the recipe, for example encoder.widths=[32,64,128]")
    options = parser.parse_args()
    pairs = [
        (framework(options.steps, options.overrides), bare(options.steps, options.overrides))
        for _ in range(options.rounds)
    ]
    ratios = [ours / loop for ours, loop in pairs]
    rows = [
        ["Trainer.fit", f"{statistics.median(ours for ours, _ in pairs):.0f}"],
        ["bare loop", f"{statistics.median(loop for _, loop in pairs):.0f}"],
        ["ratio", f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"],
    ]
    print(markdown(["", "images per second"], rows))
    print(f"{options.rounds} rounds of {options.steps} steps, peak memory {peak_megabytes():.0f} MB")


if __name__ == "__main__":
    main()
