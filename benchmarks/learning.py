"""Figures reached with our criterion and with pytorch-metric-learning's, everything else being the same.

    pip install -e '.[benchmarks]'
    python -m benchmarks.learning --seeds 1 2 3 --miners distance_weighted semihard

Encoder, data, augmentation, optimizer, schedule, steps and seeds are those of ``python run.py``; miner and loss alone
are exchanged. Figures are of the weights at the end of training, on the test classes; nothing is chosen by them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from pytorch_metric_learning import losses, miners
from typing_extensions import override

from benchmarks.common import markdown, recipe
from metric_module import Census, CriterionOutput, TripletCriterion
from metric_module.criterion.inputs import MiningInput
from metric_module.tasks.build import Parts

PEERS = {
    "distance_weighted": lambda margin: miners.DistanceWeightedMiner(cutoff=0.5, nonzero_loss_cutoff=1.4),
    "semihard": lambda margin: miners.TripletMarginMiner(margin=margin, type_of_triplets="semihard"),
    "all": lambda margin: miners.TripletMarginMiner(margin=margin, type_of_triplets="all"),
    "batch_hard": lambda margin: miners.BatchHardMiner(),
}
FIGURES = ("recall_at_1", "map_at_r")


class PeerCriterion(TripletCriterion):
    """Our criterion's interface over the peer's miner and loss (mean over the triplets with a loss above 0)."""

    def __init__(self, ours: TripletCriterion, miner: str) -> None:
        super().__init__(ours.distance, ours.miner, ours.margin, ours.loss, ours.reduction, census=False)
        self.peer_miner: Any = PEERS[miner](ours.margin)
        self.peer_loss: Any = losses.TripletMarginLoss(margin=ours.margin)

    @override
    def mine(self, given: MiningInput, census: bool) -> CriterionOutput:
        """The peer's loss while training; ours, which needs less memory, over the whole validation set."""
        if not self.training:
            return super().mine(given, census)
        triplets = self.peer_miner(given.embeddings, given.labels)
        count, none = torch.tensor(len(triplets[0])), torch.tensor(0)
        # The module reads no census of a criterion that takes none; the peer knows how many it chose, and no more.
        counts = Census(
            None,
            None,
            None,
            selected=count,
            active=none,
            anchors=none,
            lone_anchors=none,
            mean_d_ap=None,
            mean_d_an=None,
        )
        return CriterionOutput(self.peer_loss(given.embeddings, given.labels, triplets), counts)


def fit(miner: str, seed: int, peer: bool, overrides: Sequence[str]) -> tuple[Parts, float]:
    """Train once, without validation; what was trained, and seconds of training."""
    parts = recipe([f"miner={miner}", f"seed={seed}", "trainer.limit_val_batches=0", *overrides])
    if peer:
        parts.module.criterion = PeerCriterion(parts.module.criterion, miner)
    start = time.perf_counter()
    parts.trainer.fit(parts.module, datamodule=parts.datamodule)
    return parts, time.perf_counter() - start


def run(miner: str, seed: int, peer: bool, overrides: Sequence[str]) -> tuple[dict[str, float], float]:
    """Train once; figures on the test classes, and seconds of training."""
    parts, seconds = fit(miner, seed, peer, overrides)
    figures = parts.trainer.test(parts.module, datamodule=parts.datamodule, verbose=False)[0]
    return {name.removeprefix("test/"): float(value) for name, value in figures.items()}, seconds


def main() -> None:
    """Train every miner with every seed on both sides, in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--miners", nargs="+", choices=sorted(PEERS), default=["distance_weighted"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--set", nargs="*", default=[], help="overrides of the recipe, for both sides")
    options = parser.parse_args()
    rows = []
    for miner in options.miners:
        found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
        times: dict[bool, list[float]] = {False: [], True: []}
        for seed in options.seeds:
            for peer in (False, True):
                figures, seconds = run(miner, seed, peer, options.set)
                found[peer].append(figures)
                times[peer].append(seconds)
                shown = {name: figures[name] for name in FIGURES}
                print(f"{miner} seed {seed} {'peer' if peer else 'ours'}: {shown} in {seconds:.0f} s", flush=True)
        for peer in (False, True):
            means = [statistics.mean(figures[name] for figures in found[peer]) for name in FIGURES]
            side = "pytorch-metric-learning" if peer else "lightning-triplets"
            rows.append([miner, side, *(f"{mean:.3f}" for mean in means), f"{statistics.median(times[peer]):.0f}"])
    print(markdown(["miner", "criterion", *FIGURES, "seconds"], rows))


if __name__ == "__main__":
    main()
