"""trainer=fsdp: what cannot be sharded is refused before there are other processes, so that it is said once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from lightning import Trainer
from omegaconf import DictConfig

from metric_module import UserError
from metric_module.tasks import train

Compose = Callable[..., DictConfig]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["callbacks=[default,freeze_backbone]"], "callbacks.freeze_backbone"),
        (["module.encode_chunk_size=8"], "module.encode_chunk_size"),
    ],
)
def test_refused_before_processes_start(
    small: Compose, words: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*arguments: Any, **options: Any) -> None:
        raise AssertionError("it would start processes here")

    monkeypatch.setattr(Trainer, "fit", fit)
    with pytest.raises(UserError, match=f"^{re.escape(name)}: trainer=fsdp cannot do this "):
        train(small("trainer=fsdp", "trainer.devices=2", *words))
