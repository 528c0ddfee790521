"""Encoding in chunks: the gradient of the whole batch, also over two processes, with the memory of one chunk."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from metric_module import Batch, Encoder, TripletCriterion, UserError
from metric_module.distances import Euclidean
from metric_module.encoders import MLP
from metric_module.encoders.chunks import encode_in_chunks
from metric_module.miners import Semihard
from tests.helpers.batches import embed
from tests.helpers.live_memory import Live
from tests.helpers.processes import CONTEXT, on_trainers
from tests.helpers.training import Triples, loader, module, trainer


class Net(Encoder):
    """Layers that do not mix samples."""

    embedding_dim = 4

    def __init__(self, dropout: float = 0.0, depth: int = 3) -> None:
        super().__init__()
        hidden = [layer for _ in range(depth) for layer in (nn.Linear(16, 16), nn.LayerNorm(16), nn.Tanh())]
        self.body = nn.Sequential(nn.Linear(5, 16), *hidden, nn.Dropout(dropout), nn.Linear(16, 4, bias=False))
        self.calls: list[int] = []

    def forward(self, inputs: Tensor) -> Any:
        self.calls.append(len(inputs))
        return self.body(inputs)


def net(**settings: Any) -> Net:
    torch.manual_seed(0)
    return Net(**settings).double()


def gradients(encoder: nn.Module, inputs: Any, encode: Callable[..., Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Loss of the whole batch, and the gradient of every parameter."""
    embeddings = encode(encoder, inputs)
    labels = torch.arange(len(embeddings)) % 4
    loss = TripletCriterion(Euclidean(), Semihard(), margin=0.5)(embeddings, labels).loss
    encoder.zero_grad()
    loss.backward()
    return loss, [parameter.grad.clone() for parameter in encoder.parameters() if parameter.grad is not None]


def whole(encoder: nn.Module, inputs: Any) -> Any:
    return encoder(inputs)


@pytest.mark.parametrize("size", [1, 3, 8, 23, 24, 100])
def test_the_gradient_is_that_of_the_whole_batch(size: int) -> None:
    encoder, inputs = net(), embed(24, columns=5)
    loss, expected = gradients(encoder, inputs, whole)
    encoder.calls.clear()
    chunked_loss, found = gradients(encoder, inputs, partial(encode_in_chunks, size=size))
    assert loss > 0
    torch.testing.assert_close(chunked_loss, loss, rtol=1e-12, atol=0)
    assert max(encoder.calls) <= size
    assert len(encoder.calls) == (1 if size >= 24 else 2 * -(-24 // size))
    assert len(found) == len(expected) == 15
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-10 * other.norm() and other.norm() > 1e-6


def test_dropout_is_the_same_both_times() -> None:
    """The gradient equals the one through all kept activations of the same chunks, for the same seed."""
    encoder, inputs = net(dropout=0.5), embed(24, columns=5)

    def kept(encoder: nn.Module, inputs: Tensor) -> Tensor:
        return torch.cat([encoder(chunk) for chunk in torch.split(inputs, 7)])

    results = []
    for encode, seed in (
        (kept, 3),
        (partial(encode_in_chunks, size=7), 3),
        (partial(encode_in_chunks, size=7), 3),
        (partial(encode_in_chunks, size=7), 4),
    ):
        torch.manual_seed(seed)
        results.append(gradients(encoder, inputs, encode))
    for loss, found in results[1:3]:
        assert torch.equal(loss, results[0][0])
        for one, other in zip(found, results[0][1], strict=True):
            assert (one - other).norm() <= 1e-10 * other.norm()
    assert not torch.equal(results[3][0], results[0][0]), "dropout did nothing: the test would prove nothing"


def test_inputs_in_tuples_and_dicts() -> None:
    inputs = embed(10, columns=5)
    chunks: list[Any] = []

    def encode(chunk: Any) -> Tensor:
        chunks.append(chunk)
        total: Tensor = chunk.inputs["x"] + chunk.labels if isinstance(chunk, Batch) else chunk[0]["y"] + chunk[1]
        return total

    named = encode_in_chunks(encode, Batch({"x": inputs}, 2 * inputs, inputs), 4)
    assert [type(chunk) for chunk in chunks] == [Batch] * 3
    nested = encode_in_chunks(encode, [{"y": inputs}, 2 * inputs], 4)
    torch.testing.assert_close(named, 3 * inputs)
    torch.testing.assert_close(nested, 3 * inputs)


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_texts_is_cut_like_a_tensor(kind: type) -> None:
    numbers, chunks = embed(5, columns=2), []

    def encode(chunk: Any) -> Tensor:
        texts, rows = chunk
        chunks.append(texts)
        made: Tensor = rows * torch.tensor([[float(text)] for text in texts])
        return made

    texts = kind(["1", "2", "3", "4", "5"])
    made = encode_in_chunks(encode, (texts, numbers), 2)
    assert chunks == [texts[:2], texts[2:4], texts[4:]]
    torch.testing.assert_close(made, numbers * torch.arange(1, 6)[:, None])
    alone = encode_in_chunks(lambda some: torch.tensor([[float(text)] for text in some]), texts, 2)
    assert alone[:, 0].tolist() == [1, 2, 3, 4, 5]


def test_memory_is_that_of_one_chunk() -> None:
    """Compare the peak of forward and backward pass, and the tensors kept between them."""
    encoder, inputs = net(depth=30), embed(96, columns=5)
    for parameter in encoder.parameters():
        parameter.requires_grad_(parameter.ndim == 0)
    encoder.body[0].weight.requires_grad_()  # all activations are kept, and no gradients that would outweigh them

    def measure(encode: Callable[..., Tensor], rows: int) -> tuple[int, int]:
        saved: list[int] = []
        own = {tensor.untyped_storage().data_ptr() for tensor in (inputs, *encoder.parameters())}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in own:
                saved.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            encode(encoder, inputs[:rows])
        with Live() as live:
            torch.autograd.backward(encode(encoder, inputs[:rows]).sum())
        return live.peak, sum(saved)

    all_peak, all_saved = measure(whole, 96)
    chunk_peak, chunk_saved = measure(whole, 8)
    peak, saved = measure(partial(encode_in_chunks, size=8), 96)
    assert all_peak > 10 * chunk_peak and all_saved > 10 * chunk_saved > 0
    assert peak < 1.5 * chunk_peak
    assert saved == 0


def test_the_module_trains_in_chunks_and_evaluates_whole(tmp_path: Path) -> None:
    states = []
    for size in (None, 5):
        torch.manual_seed(0)
        encoder = Net().double()
        data = [batch._replace(inputs=batch.inputs.double()) for batch in Triples().batches]
        model = module(encoder, encode_chunk_size=size)
        fit = trainer(tmp_path, max_epochs=2)
        fit.fit(model, loader(data), loader(data))
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        training = [rows for rows in encoder.calls if rows != 32]
        assert len(training) == (0 if size is None else 2 * 4 * 2 * 7)
        assert max(training, default=5) == 5
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-6, atol=1e-8, msg=name)


class Chunked(nn.Module):
    def __init__(self, encoder: nn.Module, size: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.size = size

    def forward(self, inputs: Tensor) -> Tensor:
        return encode_in_chunks(self.encoder, inputs, self.size)


def _rank(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    inputs = embed(20 * world, columns=5).view(world, 20, 5)[rank]
    found = {}
    for size in (100, 6):
        encoder = DistributedDataParallel(Chunked(net(), size))
        loss, gradient = gradients(encoder, inputs, whole)
        found[size] = (loss.detach(), gradient)
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.integration
def test_two_processes_average_the_gradients_of_whole_batches(tmp_path: Path) -> None:
    other = CONTEXT.Process(target=_rank, args=(1, 2, str(tmp_path)))
    other.start()
    _rank(0, 2, str(tmp_path))
    other.join(timeout=60)
    assert other.exitcode == 0
    batches = embed(40, columns=5).view(2, 20, 5)
    alone = [gradients(net(), batch, whole) for batch in batches]
    expected = [(one + other) / 2 for one, other in zip(alone[0][1], alone[1][1], strict=True)]
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for size in (100, 6):
            loss, gradient = found[size]
            torch.testing.assert_close(loss, alone[rank][0].detach(), rtol=1e-12, atol=0)
            for one, other_one in zip(gradient, expected, strict=True):
                assert (one - other_one).norm() <= 1e-10 * other_one.norm() and other_one.norm() > 1e-6


class CountReductions(Callback):
    """Numbers of the buckets that DDP reduces in each step."""

    def __init__(self) -> None:
        self.steps: list[list[int]] = []

    def on_train_start(self, trainer: Trainer, *arguments: Any) -> None:
        wrapped: Any = trainer.strategy.model
        wrapped.register_comm_hook(None, lambda state, bucket: self._reduce(bucket))  # torch compares annotations

    def on_train_batch_start(self, *arguments: Any) -> None:
        self.steps.append([])

    def _reduce(self, bucket: Any) -> torch.futures.Future[Tensor]:
        self.steps[-1].append(bucket.index())
        return allreduce_hook(None, bucket)  # type: ignore[arg-type]  # the default group


def reductions(folder: Path, size: int | None) -> list[list[int]]:
    count = CountReductions()
    strategy = DDPStrategy(bucket_cap_mb=0.001)  # several buckets, as large encoders have
    fit = trainer(folder, devices=2, strategy=strategy, max_epochs=1, callbacks=[count], use_distributed_sampler=False)
    fit.fit(module(Net(), encode_chunk_size=size), loader())
    return count.steps


@pytest.mark.integration
@pytest.mark.parametrize("size", [None, 5])
def test_a_step_reduces_every_bucket_once_however_many_chunks(size: int | None, tmp_path: Path) -> None:
    for steps in on_trainers(reductions, 2, tmp_path / "ranks", tmp_path, size):
        assert len(steps) == 4
        assert steps[0] == [0], "DDP finds its buckets in the first step"
        for buckets in steps[1:]:
            assert buckets == [*range(len(buckets))] and len(buckets) > 1


def test_without_the_refusal_batch_norm_would_change_the_gradient() -> None:
    torch.manual_seed(0)
    encoder, inputs = MLP(in_features=5, embedding_dim=3, hidden=(8,)).double(), embed(24, columns=5)
    for training, same in ((True, False), (False, True)):
        encoder.train(training)
        _, expected = gradients(encoder, inputs, whole)
        _, found = gradients(encoder, inputs, partial(encode_in_chunks, size=8))
        gap = max(float((one - other).norm()) for one, other in zip(found, expected, strict=True))
        assert (gap < 1e-10) == same


@pytest.mark.parametrize("size", [0, -3, 2.5, True])
def test_chunk_sizes_out_of_range(size: Any) -> None:
    message = rf"module.encode_chunk_size: expected an integer >= 1 or null, got {size}"
    with pytest.raises(UserError, match=message):
        encode_in_chunks(net(), embed(4, columns=5), size)
    with pytest.raises(UserError, match=message):
        module(encode_chunk_size=size)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("text", "expected inputs of tensors [B, ...] or texts, alone or in a tuple, list or dict, got str"),
        (["a", None], "alone or in a tuple, list or dict, got str"),
        ((["a", "b"], torch.zeros(3)), "inputs that agree in their first dimension, got sizes [2, 3]"),
        ({"a": torch.zeros(3), "b": None}, "alone or in a tuple, list or dict, got NoneType"),
        (torch.zeros(()), "tuple, list or dict, got a 0-dimensional tensor"),
        ([torch.zeros(3), torch.zeros(4)], "inputs that agree in their first dimension, got sizes [3, 4]"),
        ((), "inputs that agree in their first dimension, got sizes of nothing"),
    ],
)
def test_inputs_that_cannot_be_cut(inputs: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        encode_in_chunks(net(), inputs, 2)
