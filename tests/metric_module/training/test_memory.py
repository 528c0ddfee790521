"""Cross-batch memory, compared with references kept in a list, and a resumed training with a memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metric_module import Batch, TripletCriterion, UserError
from metric_module.distances import Euclidean
from metric_module.encoders import MLP
from metric_module.miners import All, Semihard
from metric_module.training.memory import CrossBatchMemory
from tests.helpers.batches import embed
from tests.helpers.training import Triples, continued, hidden_state, loader, module, trainer

Row = tuple[Tensor, int, int]


def batches(sizes: list[int], samples: int = 20) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Batches drawn from few samples, so that samples are repeated."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for number, size in enumerate(sizes):
        ids = torch.randperm(samples, generator=generator)[:size]
        made.append((embed(size, seed=number), ids % 4, ids))
    return made


@pytest.mark.parametrize("size", [5, 7, 16, 100])
@pytest.mark.parametrize("warmup_steps", [0, 3])
def test_references_are_the_batch_and_the_newest_before_it(size: int, warmup_steps: int) -> None:
    """Batches smaller than, as large as and larger than the memory."""
    memory = CrossBatchMemory(size, embedding_dim=4, warmup_steps=warmup_steps).double()
    past: list[Row] = []
    for step, (embeddings, labels, ids) in enumerate(batches([6, 5, 7, 16, 3, 1, 8, 5])):
        together = memory(embeddings, labels, ids)
        known = past[-size:] if step >= warmup_steps else []
        assert together["ids"] is ids
        assert torch.equal(together["reference"][: len(ids)], embeddings)
        assert torch.equal(together["reference_ids"][: len(ids)], ids)
        rest = zip(
            *(together[name][len(ids) :] for name in ("reference", "reference_labels", "reference_ids")), strict=True
        )
        found = sorted((int(id), int(label), row.tolist()) for row, label, id in rest)
        assert found == sorted((id, label, row.tolist()) for row, label, id in known)
        past += [(row, int(label), int(id)) for row, label, id in zip(embeddings, labels, ids, strict=True)]


def test_loss_and_gradient_are_those_of_a_reference_set_made_by_hand() -> None:
    memory = CrossBatchMemory(12, embedding_dim=4).double()
    criterion = TripletCriterion(Euclidean(), Semihard(), margin=0.8)
    past: list[Row] = []
    for embeddings, labels, ids in batches([6, 6, 6, 6]):
        query = embeddings.clone().requires_grad_()
        output = criterion(query, labels, **memory(query, labels, ids))
        output.loss.backward()
        leaf = embeddings.clone().requires_grad_()
        known = past[-12:]
        reference = torch.cat([leaf, *(row[None] for row, _, _ in known)])
        reference_labels = torch.tensor([*labels, *(label for _, label, _ in known)])
        reference_ids = torch.tensor([*ids, *(id for _, _, id in known)])
        same = labels[:, None] == reference_labels
        other_id = ids[:, None] != reference_ids
        by_hand = TripletCriterion(Euclidean(), Semihard(), margin=0.8)(
            leaf, None, reference, positives=same & other_id, negatives=~same & other_id
        )
        by_hand.loss.backward()
        torch.testing.assert_close(output.loss, by_hand.loss, rtol=1e-12, atol=0)
        torch.testing.assert_close(query.grad, leaf.grad, rtol=1e-10, atol=1e-14)
        assert output.census.selected == by_hand.census.selected > 0
        past += [(row, int(label), int(id)) for row, label, id in zip(embeddings, labels, ids, strict=True)]
    assert not memory.embeddings.requires_grad


def test_evaluation_reads_and_does_not_write() -> None:
    memory = CrossBatchMemory(8, embedding_dim=4)
    first, second, _ = batches([5, 5, 5])
    memory(*first)
    before = {name: value.clone() for name, value in memory.state_dict().items()}
    assert len(memory.eval()(*second)["reference"]) == 10
    assert all(torch.equal(value, before[name]) for name, value in memory.state_dict().items())


def test_samples_without_ids_are_never_taken_for_one_another() -> None:
    memory = CrossBatchMemory(50, embedding_dim=4)
    seen: set[int] = set()
    for embeddings, labels, _ in batches([6, 6, 9]):
        together = memory(embeddings, labels)
        ids, reference_ids = together["ids"], together["reference_ids"]
        assert max(ids.tolist()) < 0
        assert not seen & set(ids.tolist())
        assert len(set(reference_ids.tolist())) == len(reference_ids)
        seen |= set(ids.tolist())


def test_a_loader_without_ids_loses_no_pair(tmp_path: Path) -> None:
    """Every batch has all classes: the positives of an anchor are in the batch and in the memory."""
    data = Triples()
    counted: list[int] = []

    def run(batches: list[Any]) -> list[int]:
        model = module(memory=CrossBatchMemory(1000, embedding_dim=3))
        inner: Any = model.criterion.mine

        def spy(given: Any, census: bool) -> Any:
            output = inner(given, True)
            counted.append(output.census.selected.item())
            return output

        model.criterion.mine = spy  # type: ignore[method-assign]
        counted.clear()
        trainer(tmp_path, max_epochs=2).fit(model, loader(batches))
        return list(counted)

    expected = [32 * (3 + 4 * past) * 28 * (1 + past) for past in range(8)]
    assert run([(batch.inputs, batch.labels) for batch in data.batches]) == expected
    with_ids = run(list(data.batches))
    assert with_ids[:4] == expected[:4]
    # From the second epoch on each anchor is in the memory once, and is no positive of itself.
    assert with_ids[4:] == [32 * (3 + 4 * past - 1) * 28 * (1 + past) for past in range(4, 8)]


def test_embeddings_stay_in_float32_when_the_module_does_not() -> None:
    memory = CrossBatchMemory(4, embedding_dim=3).to(torch.bfloat16)
    assert memory.embeddings.dtype == torch.float32
    assert memory.double().embeddings.dtype == torch.float64
    row = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16)
    memory.float()(row, torch.tensor([0]), torch.tensor([0]))
    together = memory(row, torch.tensor([0]), torch.tensor([1]))
    assert together["reference"].dtype == torch.float32
    assert together["reference"].tolist() == [[1.0, 2.0, 3.0]] * 2


def test_nan_never_enters(tmp_path: Path) -> None:
    good = Triples().batches[0]
    poisoned = Batch(good.inputs * torch.nan, good.labels, good.index)
    model = module(memory=CrossBatchMemory(100, embedding_dim=3))
    with pytest.raises(UserError, match="NaN or infinity in 32 of 32 embeddings at step 1"):
        trainer(tmp_path).fit(model, loader([good, poisoned]))
    assert model.memory is not None
    assert model.memory.seen == 32
    assert torch.isfinite(model.memory.embeddings).all()


def test_training_continues_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    def build(seed: int) -> Any:
        return module(memory=CrossBatchMemory(75, embedding_dim=3, warmup_steps=6), seed=seed)

    whole, forgetful = continued(tmp_path, build, "memory.seen")
    without: Any = module()
    trainer(tmp_path, max_epochs=4).fit(without, loader())
    for other in (forgetful, without):
        assert not torch.equal(other.encoder.head.linear.weight, whole.encoder.head.linear.weight)


def test_nothing_changes_outside_the_state() -> None:
    class Leaky(CrossBatchMemory):
        pointer = 0

        def forward(self, *arguments: Any) -> dict[str, Tensor]:
            self.pointer += 1
            return super().forward(*arguments)

    for kind, kept in ((CrossBatchMemory, True), (Leaky, False)):
        memory = kind(8, embedding_dim=4)
        before = hidden_state(memory)
        for batch in batches([5, 6]):
            memory(*batch)
        assert (hidden_state(memory) == before) == kept
        assert memory.seen == 11 and memory.steps == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4), r"memory.size: expected an integer >= 1, got 0"),
        ((2.5, 4), r"memory.size: expected an integer >= 1, got 2.5"),
        ((8, None), r"memory.embedding_dim: expected an integer >= 1, got None"),
        ((8, 4, -1), r"memory.warmup_steps: expected an integer >= 0, got -1"),
    ],
)
def test_arguments_out_of_range(arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CrossBatchMemory(*arguments)


def test_a_memory_of_another_width() -> None:
    with pytest.raises(UserError, match=r"memory.embedding_dim: expected 3 as in MLP, got 4"):
        module(MLP(5, 3), miner=All(), memory=CrossBatchMemory(8, embedding_dim=4))
