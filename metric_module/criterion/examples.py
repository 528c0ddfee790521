"""Examples of the triplets that a criterion mines, for the report.

Shapes: B = anchors, A = anchors that examples are taken from, M = references, K = most positives of an anchor,
D = embedding size, T = triplets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from metric_module.criterion.inputs import MiningInput
from metric_module.criterion.pairing import pair_rule
from metric_module.criterion.triplet import TripletCriterion
from metric_module.distances.base import on_device
from metric_module.functional import at_least_float32, full_precision, in_float64_reach
from metric_module.keyed_random import combine, keyed_uniform
from metric_module.miners import SelectingMiner, Uniform, WindowMiner
from metric_module.miners.positives import PairMasks, positive_slots

ANCHORS = 256
SLOTS = 16
NAMING = 4711
CATEGORIES = ("easy", "semi-hard", "hard")

Choices = Callable[[int], tuple[Tensor, Tensor]]
"""``choices(a)`` returns the columns of positive and negative, each int64 ``(n,)``, of every triplet of anchor a."""


class Named(NamedTuple):
    """Examples of mined triplets.

    Attributes:
        anchor: Row among the anchors, int64 ``(T,)``.
        positive: Row among the references, int64 ``(T,)``.
        negative: Row among the references, int64 ``(T,)``.
        d_ap: Distance of the positive pair, ``(T,)``.
        d_an: Distance of the negative pair, ``(T,)``.
    """

    anchor: Tensor
    positive: Tensor
    negative: Tensor
    d_ap: Tensor
    d_an: Tensor


def named_triplets(criterion: TripletCriterion, given: MiningInput, limit: int = 8) -> Named:
    """Name up to ``limit`` of the triplets that the criterion mines from a batch, each of another anchor.

    A selecting miner names its own, the same as in the call. Of a window miner's many, each anchor shows one. Which
    anchors and which triplets is drawn by the criterion's seed and step, and from no global random state. Reads no more
    than 256 anchors, spread over the batch, and of a window miner's no more than 16 positives of each.

    Args:
        criterion: Mines with its current miner and margin.
        given: Checked input of the criterion, with labels.
        limit: Largest number of triplets.

    Returns:
        The triplets; none if the miner finds none.

    Example:
        >>> from metric_module.distances import Euclidean
        >>> from metric_module.miners import Hard
        >>> criterion = TripletCriterion(Euclidean(), Hard(), margin=0.2)
        >>> batch = MiningInput(torch.tensor([[0.0], [3.0], [1.0]]), torch.tensor([7, 7, 8]))
        >>> [(int(a), int(p), int(n)) for a, p, n in zip(*named_triplets(criterion, batch)[:3], strict=True)]
        [(0, 1, 2), (1, 0, 2)]
    """
    placed = MiningInput(*(in_float64_reach(part) for part in given))
    embeddings, labels = placed.embeddings, placed.labels
    assert labels is not None
    count = len(embeddings)
    rows = torch.arange(0, count, max(1, -(-count // ANCHORS)), device=labels.device)  # (A,)
    if placed.reference is None:
        names = torch.arange(count, device=labels.device) if placed.ids is None else placed.ids  # (M,)
        placed = placed._replace(reference=embeddings, reference_labels=labels, ids=names, reference_ids=names)
    assert placed.reference is not None
    ids = None if placed.ids is None else placed.ids[rows]  # (A,)
    place = (given.first or 0) + rows  # (A,)
    with torch.no_grad(), full_precision(embeddings.device.type):
        query = at_least_float32(embeddings.detach()[rows])  # (A, D)
        reference = at_least_float32(placed.reference.detach())  # (M, D)
        rule = pair_rule(placed._replace(labels=labels[rows], ids=ids))
        distances = on_device(criterion.distance, query.device)[0](query, reference)  # (A, M)
        masks = rule.masks(slice(0, len(rows)))
        block = ExampleBlock(distances, masks, criterion.margin, partial(criterion.uniform, place))
        keys = combine(criterion.seed, int(criterion.step), NAMING, place)  # (A,)
        found = _pick(criterion.current_miner.mine(block), keys, limit)
    anchor, positive, negative = found.to(labels.device).unbind(dim=1)
    return Named(rows[anchor], positive, negative, distances[anchor, positive].cpu(), distances[anchor, negative].cpu())


def categories(d_ap: Tensor, d_an: Tensor, margin: float) -> list[str]:
    """Name the category of each triplet, from its two distances, each ``(T,)``.

    Example:
        >>> categories(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.5, 0.7, 0.75]), margin=0.2)
        ['hard', 'semi-hard', 'easy']
    """
    kind = 2 - (d_an > d_ap).long() - (d_an > d_ap + margin).long()  # (T,)
    return [CATEGORIES[place] for place in kind.tolist()]


def _pick(choices: Choices, keys: Tensor, limit: int) -> Tensor:
    """Pick one triplet of each of up to ``limit`` anchors, drawn by the anchors' keys ``(A,)``: int64 ``(T, 3)``."""
    numbers = keyed_uniform(keys, 2).cpu()  # (A, 2)
    found: list[list[int]] = []
    for anchor in numbers[:, 0].argsort(stable=True).tolist():
        if len(found) == limit:
            break
        positive, negative = choices(anchor)
        if len(positive):
            place = int(numbers[anchor, 1] * len(positive))
            found.append([anchor, int(positive[place]), int(negative[place])])
    return torch.tensor(sorted(found), dtype=torch.int64).reshape(-1, 3)


class ExampleBlock(NamedTuple):
    """Some anchors of a batch, from which examples are taken.

    Attributes:
        distances: Distances ``(A, M)``.
        masks: Positives and negatives.
        margin: In units of the distance.
        uniform: Random numbers of the anchors in this step.
    """

    distances: Tensor
    masks: PairMasks
    margin: float
    uniform: Uniform

    def mine_selection(self, miner: SelectingMiner) -> Choices:
        """The triplets that the miner selects."""
        selected = miner.select(self.distances, self.masks.positive, self.masks.negative, self.margin, self.uniform)

        def choices(anchor: int) -> tuple[Tensor, Tensor]:
            """Positive and negative of each selected triplet."""
            own = selected.anchor == anchor
            return selected.positive[own], selected.negative[own]

        return choices

    def mine_window(self, miner: WindowMiner) -> Choices:
        """Every negative in the window of every positive, for the first positives of each anchor."""
        column, valid, _ = positive_slots(self.masks.positive)
        column, valid = column[:, :SLOTS], valid[:, :SLOTS]  # (A, K), (A, K)
        d_ap = torch.where(valid, self.distances.gather(1, column), -torch.inf)  # (A, K)
        window = miner.window(d_ap, self.margin)
        low, high = (torch.as_tensor(edge, dtype=d_ap.dtype, device=d_ap.device).expand_as(d_ap) for edge in window)

        def choices(anchor: int) -> tuple[Tensor, Tensor]:
            """Positive and negative of each triplet in the window."""
            values = self.distances[anchor]  # (M,)
            inside = (values > low[anchor, :, None]) & (values <= high[anchor, :, None])  # (K, M)
            inside &= self.masks.negative[anchor] & valid[anchor, :, None]
            slot, negative = inside.nonzero(as_tuple=True)  # (n,), (n,)
            return column[anchor, slot], negative

        return choices
