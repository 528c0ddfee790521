"""Guards of BatchNorm: chunks of a batch, and forward passes that are recomputed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from metric_module import UserError
from metric_module.encoders import MLP, TimmEncoder
from metric_module.encoders.batch_norm import refuse_batch_norm
from tests.helpers.training import loader, module, trainer


def test_batch_norm_is_refused_while_it_trains(tmp_path: Path) -> None:
    encoder = MLP(in_features=5, embedding_dim=3, hidden=(8,))
    message = (
        "module.encode_chunk_size: MLP.body.1 is a BatchNorm1d in training mode, whose statistics would be those of a "
        "chunk; keep it in evaluation mode (frozen), use a norm within each sample (LayerNorm, GroupNorm)"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        trainer(tmp_path).fit(module(encoder, encode_chunk_size=8), loader())
    encoder.eval()
    refuse_batch_norm(encoder)
    with pytest.raises(UserError, match=r"Sequential.0 is a BatchNorm1d"):
        refuse_batch_norm(nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)).eval())


def test_without_track_statistics_once_steps_count_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metric_module.encoders.timm.track_statistics_once", lambda backbone: None)
    counts = []
    for on in (False, True):
        encoder: Any = TimmEncoder("test_resnet", 8, grad_checkpointing=on).train()
        torch.autograd.backward(encoder(torch.rand(6, 3, 32, 32))[:, 0].sum())
        counts.append(int(encoder.backbone.layer2[0].bn1.num_batches_tracked))
    assert counts == [1, 2]
