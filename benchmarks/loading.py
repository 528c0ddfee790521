"""Images per second of ``ImageFolderDataModule`` and of torchvision's ``ImageFolder``, side by side, with memory.

    python -m benchmarks.loading --sizes 64 224 --workers 2

JPEGs of 500 x 375 pixels are decoded, scaled to the size by the shorter side, cut out in the middle, and given as
float32 in [-1, 1], in batches of 64, by as many workers. Both decode with Pillow. Ours asks it to decode a JPEG at a
half, a quarter or an eighth of its size where that leaves at least twice the pixels that are needed ("draft");
``ImageFolder`` does not, unless it is given a loader of one's own. So there are four sides: each with draft and
without. The sides take turns in each round, the first round is dropped, figures are medians over the rounds. Memory is
the proportional set size of the process and its workers after four batches, less what the process had before. Linux.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.common import markdown, proportional_megabytes
from datamodules import ImageFolderDataModule

BATCH = 64
DRAFT = "PIL.JpegImagePlugin.JpegImageFile.draft"


def write_images(root: Path, classes: int, each: int) -> None:
    """Photographs of a kind: shapes of many sizes, as sums of noise that is scaled up, and grain."""
    random = np.random.default_rng(0)
    for label in range(classes):
        (root / f"class_{label:02d}").mkdir(parents=True)
        for number in range(each):
            picture = np.zeros((375, 500, 3), np.float32)
            for cells in (4, 16, 64):
                noise = random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
                picture += np.asarray(Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC)) / 3
            picture += random.normal(0, 6, picture.shape)
            image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
            image.save(root / f"class_{label:02d}" / f"{number:03d}.jpg", quality=90)


def ours(root: Path, size: int, workers: int) -> Iterable[Any]:
    """Every image once, in the data module's own loader."""
    data = ImageFolderDataModule(
        root=str(root), image_size=size, num_workers=workers, eval_batch_size=BATCH, preflight=False, augment=None
    )
    return data.eval_dataloader("all")


def theirs(root: Path, size: int, workers: int, loader: Callable[[str], Image.Image] | None) -> Iterable[Any]:
    """Every image once, in torch's loader over torchvision's data set."""
    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()]
    change = transforms.Compose([*steps, transforms.Normalize([0.5] * 3, [0.5] * 3)])
    dataset = ImageFolder(root, change) if loader is None else ImageFolder(root, change, loader=loader)
    return DataLoader(dataset, batch_size=BATCH, num_workers=workers)


def with_draft(size: int) -> Callable[[str], Image.Image]:
    """Make a loader for ``ImageFolder`` that decodes a JPEG at a fraction of its size, as ours does."""

    def load(path: str) -> Image.Image:
        """Read one image at twice the target size or more."""
        with Image.open(path) as image:
            image.draft("RGB", (2 * size, 2 * size))
            return image.convert("RGB")

    return load


def once(loader: Iterable[Any]) -> tuple[float, float]:
    """Images per second from the start of the workers to the last batch, and megabytes."""
    before, held, seen = proportional_megabytes(), 0.0, 0
    start = time.perf_counter()
    for batch in loader:
        seen += len(batch[0])
        if seen == 4 * BATCH:
            held = proportional_megabytes() - before
    return seen / (time.perf_counter() - start), held


def compare(root: Path, size: int, workers: int, rounds: int) -> list[list[str]]:
    """A row of the table for each side."""
    sides: dict[str, Callable[[], Iterable[Any]]] = {
        "ours, with draft (the default)": lambda: ours(root, size, workers),
        "ImageFolder, as it comes": lambda: theirs(root, size, workers, None),
        "ours, without draft": lambda: ours(root, size, workers),
        "ImageFolder, with draft": lambda: theirs(root, size, workers, with_draft(size)),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, loader in sides.items():
            if name == "ours, without draft":
                with patch(DRAFT, lambda *_: None):
                    found[name].append(once(loader()))
            else:
                found[name].append(once(loader()))
    speed = {name: statistics.median(rate for rate, _ in runs[1:]) for name, runs in found.items()}
    memory = {name: statistics.median(held for _, held in runs[1:]) for name, runs in found.items()}
    plain = speed["ImageFolder, as it comes"]
    return [[str(size), n, f"{speed[n]:,.0f}", f"{speed[n] / plain:.2f}", f"{memory[n]:,.0f} MB"] for n in sides]


def main() -> None:
    """Measure every size, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, classes=20, each=given.images // 20)
        rows = [row for size in given.sizes for row in compare(root, size, given.workers, given.rounds)]
    print(markdown(["size", "side", "images/s", "of ImageFolder", "memory"], rows))


if __name__ == "__main__":
    main()
