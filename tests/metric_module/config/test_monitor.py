"""Direction of a figure by its name."""

from __future__ import annotations

from metric_module.config.monitor import is_error


def test_lower_is_better_for_errors() -> None:
    names = {"val/loss": True, "val/map_at_r": False, "val/eer": True, "test/triplet_loss": True, "val/lossless": False}
    assert {name: is_error(name) for name in names} == names
