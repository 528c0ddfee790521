"""A validation at the end of training, for every way to say when to validate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metric_module.callbacks import LastValidation
from metric_module.encoders import MLP
from tests.helpers.clouds import Clouds, Record
from tests.helpers.training import module, trainer


@pytest.mark.parametrize(
    ("settings", "validated"),
    [
        ({"max_steps": 10, "max_epochs": -1, "val_check_interval": 3}, [3, 6, 9, 10]),
        ({"max_steps": 9, "max_epochs": -1, "val_check_interval": 3}, [3, 6, 9]),
        ({"max_epochs": 2, "val_check_interval": 3}, [3, 6, 8]),
        ({"max_epochs": 2, "val_check_interval": 100}, [8]),
        ({"max_epochs": 3, "check_val_every_n_epoch": 2}, [8, 12]),
        ({"max_steps": 10, "max_epochs": -1, "check_val_every_n_epoch": 2}, [8, 10]),
        ({"max_steps": 6, "max_epochs": 3, "val_check_interval": 4}, [4, 6]),
    ],
)
def test_the_last_step_is_validated_once(tmp_path: Path, settings: dict[str, Any], validated: list[int]) -> None:
    seen = Record()
    given = {"check_val_every_n_epoch": None, "num_sanity_val_steps": 0, **settings}
    data = Clouds(classes_per_batch=4, samples_per_class=2, seed=2)  # 4 batches an epoch
    fitting = trainer(tmp_path, callbacks=[LastValidation(), seen], **given)
    fitting.fit(module(MLP(in_features=6, embedding_dim=3, hidden=(8,))), datamodule=data)
    assert seen.validated == validated and fitting.global_step == validated[-1]
