"""Every node is compared with the signature of its target before it is built."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from metric_module import UserError
from metric_module.cli import explain
from metric_module.config.arguments import check_arguments, locate
from metric_module.tasks import train

Compose = Callable[..., DictConfig]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["+encoder.widht=3"],
            r"encoder.widht: Tiny has no such argument; did you mean 'width'\? allowed: embedding_dim, ",
        ),
        (
            ["encoder=conv_net", "encoder.embedding_dim=wide"],
            r"encoder.embedding_dim: ConvNet expected int, got 'wide'",
        ),
        (["encoder=conv_net", "encoder.embedding_dim=1.5"], r"encoder.embedding_dim: ConvNet expected int, got 1.5"),
        (["encoder=conv_net", "encoder.normalize=3"], r"encoder.normalize: ConvNet expected bool, got 3"),
        (["encoder=conv_net", "encoder.embedding_dim=true"], r"encoder.embedding_dim: ConvNet expected int, got True"),
        (["encoder=timm", "encoder.weights=3"], r"encoder.weights: TimmEncoder expected str or null, got 3"),
        (
            ["encoder=custom", "encoder._target_=metric_module.encoders.MLP"],
            r"encoder.in_features: MLP needs this argument; give",
        ),
        (
            ["datamodule=emoji", "datamodule.num_workers=many"],
            r"datamodule.num_workers: EmojiDataModule expected int, got 'many'",
        ),
        (
            ["encoder._target_=tests.helpers.small.Tinny"],
            r"encoder._target_: 'tests.helpers.small' has no 'Tinny'; did you mean 'Tiny'\?",
        ),
        (
            ["encoder._target_=no_such.Encoder"],
            r"encoder._target_: cannot import 'no_such.Encoder'; expected module.Class",
        ),
        (["encoder._target_=Encoder"], r"encoder._target_: cannot import 'Encoder'; expected module.Class"),
        (
            ["encoder._target_=tests.helpers.small.SIZE"],
            r"expected a class or a function, got tests.helpers.small.SIZE, a int",
        ),
        (
            ["trainer.precision=bf17"],
            r"trainer.precision: Trainer expected 64 or 32 or 16 or .*'bf16-mixed'.*, got 'bf17'",
        ),
        (
            ["trainer.limit_val_batches=few"],
            r"trainer.limit_val_batches: Trainer expected (int or float|float or int) or null, got 'few'",
        ),
        (["optimizer.lr=high"], r"optimizer.lr: AdamW expected float or .*Tensor, got 'high'"),
        (["+scheduler.warmup=0.1"], r"scheduler.warmup: warmup_cosine has no such argument"),
        (
            ["+callbacks.best.monitr=x"],
            r"callbacks.best.monitr: ModelCheckpoint has no such argument; did you mean 'monitor'\?",
        ),
        (["encoder.width=[8]"], r"encoder.width: Tiny expected int, got \[8\]"),
        (["+miner.depth=3"], r"miner.depth: All has no such argument; allowed: none"),
        (["criterion.reduction=median"], r"reduction: expected one of mean_active, mean, sum, got 'median'"),
        (
            ["distance=cosine", "miner=distance_weighted"],
            r"distance weighted: expected Euclidean distance, got Cosine",
        ),
    ],
)
def test_what_does_not_fit_is_refused(small: Compose, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(small(*overrides))


def test_nothing_is_written_for_a_refused_argument(small: Compose, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="widht"):
        train(small("+encoder.widht=3"))
    assert not list(tmp_path.iterdir())


def test_an_unknown_figure_to_monitor(small: Compose) -> None:
    """A metric that does not name its figures leaves it to the first validation."""
    mine = ("+evaluation.mine._target_=tests.helpers.my_metrics.Spread", "monitor=val/nothing")
    with pytest.raises(
        MisconfigurationException, match=r"monitor='val/nothing'.* could not find the monitored key"
    ) as error:
        train(small(*mine))
    told = explain(error.value) or ""
    assert re.fullmatch(r"monitor: expected one of val/loss, (val/\w+, )*val/\w+, got val/nothing", told), told
    assert "val/map_at_r" in told


def test_nodes_inside_lists_and_dicts() -> None:
    node: dict[str, Any] = {"a": [{"_target_": "metric_module.miners.All", "foo": 1}]}
    with pytest.raises(UserError, match=r"x.a.0.foo: All has no such argument; allowed:"):
        check_arguments("x", node)
    check_arguments("x", {"a": [{"_target_": "metric_module.miners.All"}], "b": {"c": None}})


def test_an_error_in_the_users_module_keeps_its_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_encoders.py").write_text("import surely_not_installed\n")
    (tmp_path / "failing_encoders.py").write_text("1 / 0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        locate("encoder._target_", "broken_encoders.Tiny")
    with pytest.raises(ZeroDivisionError):
        locate("encoder._target_", "failing_encoders.Tiny")


def test_a_method_of_a_class_may_build_a_part() -> None:
    assert locate("x", "pathlib.Path.cwd")() == Path.cwd()


def test_a_logger_whose_package_is_missing(small: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    with pytest.raises(UserError, match=r"logger.wandb: a package is missing \(False\)"):
        train(small("logger=wandb"))


def test_an_argument_without_a_default_is_asked_for() -> None:
    with pytest.raises(
        UserError, match=r"datamodule.root: ImageFolderDataModule needs this argument; give \+datamodule.root"
    ):
        check_arguments("datamodule", {"_target_": "datamodules.ImageFolderDataModule"})


def test_keys_that_say_how_a_target_is_called() -> None:
    target = {"_target_": "metric_module.miners.All"}
    for node, told in (
        ({"_partial_": "yes"}, r"^x._partial_: expected one of False, True, got 'yes'$"),
        ({"_recursive_": [1]}, r"^x._recursive_: expected one of False, True, got \[1\]$"),
        ({"_convert_": "most"}, r"^x._convert_: expected one of none, partial, object, all, got 'most'$"),
        ({"_args_": 3}, r"^x._args_: expected a list, got 3$"),
        ({0: 1}, r"^x.0: expected the name of an argument, got 0$"),
    ):
        with pytest.raises(UserError, match=told):
            check_arguments("x", target | node)
