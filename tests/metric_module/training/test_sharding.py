"""Sharded weights: what is sharded by itself, and how often it is gathered."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule

from metric_module.encoders import CharConvNet
from metric_module.encoders.chunks import encode_in_chunks
from metric_module.training.sharding import blocks, shard_encoder
from tests.helpers.processes import on_ranks
from tests.helpers.sharded import Blocks


def test_blocks_that_share_a_parameter_stay_with_the_module_around_them() -> None:
    layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    assert blocks(layers, least=20) == [*layers]
    layers[2].weight = layers[0].weight
    assert blocks(layers, least=20) == [layers[1]]
    whole = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), layers), nn.Linear(4, 4)])
    assert blocks(whole, least=36) == [layers], "both uses are inside it"


def collectives(least: int) -> dict[tuple[bool, int | None], tuple[int, int]]:
    """Count gathers and reductions of a step, by whether weights are freed after the forward pass, and chunk size."""
    counts: Counter[str] = Counter()

    def counted(name: str) -> Any:
        call = getattr(dist, name)

        def count(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return call(*arguments, **options)

        return count

    names = ("all_gather_single", "reduce_scatter_single")
    for name in names:
        setattr(dist, name, counted(name))
    found = {}
    for frees, size in itertools.product((True, False), (None, 5)):
        encoder = Blocks(False)
        shard_encoder(encoder, init_device_mesh("cpu", (2,)), least)
        for part in encoder.modules():
            if isinstance(part, FSDPModule):
                part.set_reshard_after_forward(frees, recurse=False)
        counts.clear()
        inputs = torch.randn(20, 6)
        embeddings = encoder(inputs) if size is None else encode_in_chunks(encoder, inputs, size)
        embeddings.sum().backward()
        found[frees, size] = (counts[names[0]], counts[names[1]])
    return found


@pytest.mark.integration
def test_why_chunks_are_refused(tmp_path: Path) -> None:
    """Three blocks, and the rest: four chunks gather their weights again, even if these are kept between the chunks."""
    for found in on_ranks(collectives, 2, tmp_path, 1):
        assert found[True, None] == (2 * 4, 4), "gathered for either direction, reduced once"
        assert found[True, 5][0] > 3 * found[True, None][0]
        assert found[False, None] == (4, 4)
        assert found[False, 5][0] > 3 * found[False, None][0]


def embed_texts(least: int) -> tuple[Tensor, Tensor]:
    """Embed texts of one length on the first process, and of many on the second, before and after sharding."""
    torch.manual_seed(0)
    encoder = CharConvNet(embedding_dim=4, width=8, depth=2).eval()
    texts = (["abc"] * 40, ["abc" * length for length in range(1, 41)])[dist.get_rank()]
    whole = encoder(texts).detach()
    shard_encoder(encoder, init_device_mesh("cpu", (2,)), least)
    return whole, encoder(texts).detach()


@pytest.mark.integration
def test_processes_call_their_blocks_equally_often_whatever_the_lengths_of_texts(tmp_path: Path) -> None:
    for whole, sharded in on_ranks(embed_texts, 2, tmp_path, 1):
        torch.testing.assert_close(sharded, whole, rtol=0, atol=1e-6)
        assert float(whole.norm()) > 1
