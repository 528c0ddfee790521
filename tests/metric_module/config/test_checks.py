"""A configuration is checked once before the task, and again if the task gets another one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from metric_module import UserError
from metric_module.config.checks import check, checked
from metric_module.tasks import census, embed, evaluate, train

Compose = Callable[..., DictConfig]


def test_inside_the_same_object_is_not_checked_again(small: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[DictConfig] = []
    monkeypatch.setattr("metric_module.config.checks._check_margin", seen.append)
    cfg = small()
    with checked(cfg):
        check(cfg)
        assert len(seen) == 1
        check(cfg.copy())
        assert len(seen) == 2
    check(cfg)
    assert len(seen) == 3


def test_a_mistake_leaves_nothing_checked(small: Compose) -> None:
    cfg = small("margin=-1")
    for _ in range(2):
        with pytest.raises(UserError, match=r"margin: expected a finite number > 0 .*, got -1.0"), checked(cfg):
            pass


@pytest.mark.parametrize("task", [train, evaluate, embed, census])
def test_a_task_that_is_called_from_python_checks(task: Callable[[DictConfig], object], small: Compose) -> None:
    with pytest.raises(UserError, match="seed: expected an integer from 0 to 4294967295, got -1"):
        task(small(f"task={task.__name__}", "seed=-1"))
