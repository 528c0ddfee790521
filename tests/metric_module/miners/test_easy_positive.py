"""The nearest positive of each anchor, compared with a loop over anchors."""

from __future__ import annotations

import pytest
import torch

from metric_module import TripletCriterion, UserError
from metric_module.distances import Cosine
from metric_module.miners import EasyPositive
from tests.helpers.batches import LABELS, embed
from tests.oracles.miners import easy_positive, random_block


@pytest.mark.parametrize("negative", ["nearest", "semihard"])
def test_equals_a_loop_over_anchors(negative: str) -> None:
    counts = set()
    for seed in range(20):
        block = random_block(seed, levels=[4, 9, 40][seed % 3])
        found = EasyPositive(negative).select(*block, 0.2, torch.rand)
        expected = easy_positive(*block, negative)
        assert list(zip(*(part.tolist() for part in found), strict=True)) == expected
        counts.add(len(expected))
    assert min(counts) > 0
    assert (len(counts) > 1) == (negative == "semihard"), "only then may an anchor with both kinds get nothing"


def test_semihard_is_strictly_farther_and_has_no_upper_edge() -> None:
    distances = torch.tensor([[0.3, 0.5, 0.3, 9.0]])
    positive, negative = torch.tensor([[True, True, False, False]]), torch.tensor([[False, False, True, True]])
    for kind, column in (("semihard", 3), ("nearest", 2)):
        found = EasyPositive(kind).select(distances, positive, negative, 0.1, torch.rand)
        assert [part.tolist() for part in found] == [[0], [0], [column]]


def test_the_papers_loss_at_temperature_one() -> None:
    """Softmax over the similarities of the positive and the semi-hard negative (Xuan et al. 2020)."""
    embeddings, labels = embed(12, seed=3), LABELS["uneven"]
    output = TripletCriterion(Cosine(), EasyPositive(), margin=0, loss="soft")(embeddings, torch.tensor(labels))
    rows = torch.nn.functional.normalize(embeddings, dim=1)
    terms = []
    for a in range(12):
        similarity = rows @ rows[a]
        positives = [similarity[m] for m in range(12) if labels[m] == labels[a] and m != a]
        negatives = [similarity[m] for m in range(12) if labels[m] != labels[a] and similarity[m] < max(positives)]
        if negatives:
            terms.append(-torch.stack([max(positives), max(negatives)]).log_softmax(dim=0)[0])
    assert output.census.selected == len(terms) > 8
    torch.testing.assert_close(output.loss, torch.stack(terms).mean(), rtol=1e-10, atol=0)


def test_refuses_an_unknown_negative() -> None:
    with pytest.raises(UserError, match="easy positive: negative: expected one of nearest, semihard, got 'easy'"):
        EasyPositive("easy")
