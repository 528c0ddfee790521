"""train(cfg) and evaluate(cfg): budgets, checkpoints, figures and files, on small data."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from metric_module import UserError
from metric_module.cli import check
from metric_module.tasks import evaluate, train
from tests.helpers.small import evaluated

Compose = Callable[..., DictConfig]


def state(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_writes_its_folder(small: Compose, tmp_path: Path) -> None:
    figures = train(small("logger=default"))
    folder = tmp_path / "run"
    names = {path.name for path in folder.iterdir()}
    files = {"config.yaml", "metrics.json", "metrics.csv", "report.html", "encoder.safetensors"}
    assert names == files | {"checkpoints", "tensorboard"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert any((folder / "tensorboard").iterdir())
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {f"{stage}/{name}": value for stage in metrics for name, value in metrics[stage].items()} == figures
    assert metrics.keys() == {"raw", "before", "val", "test"}
    assert {"loss", "recall_at_1", "recall_at_5", "map_at_r"} <= metrics["val"].keys() & metrics["test"].keys()
    assert 0 < metrics["val"]["map_at_r"] < 1
    assert not [path for path in folder.rglob("*") if "=" in path.name or "," in path.name]


def test_the_saved_configuration_holds_plain_values(small: Compose, tmp_path: Path) -> None:
    cfg = small("margin=0.3", "trainer.fast_dev_run=true")
    train(cfg)
    saved = OmegaConf.load(tmp_path / "run" / "config.yaml")
    given = OmegaConf.to_container(cfg, resolve=True)
    given["monitor"] = given["callbacks"]["best"]["monitor"] = "val/map_at_r"  # type: ignore[index,call-overload]
    given["callbacks"]["best"]["mode"] = "max"  # type: ignore[index,call-overload]  # null and auto, until it is built
    given["trainer"]["check_val_every_n_epoch"] = 1  # type: ignore[index,call-overload]  # null: an eighth of the run
    assert OmegaConf.to_container(saved, resolve=False) == given
    assert saved.criterion.margin == 0.3


def test_figures_are_those_of_the_best_checkpoint(small: Compose, tmp_path: Path) -> None:
    """The smallest epoch counts as the best one here, so that best and last differ whatever training does."""
    best = ["monitor=epoch", "callbacks.best.mode=min"]
    figures = train(small(*best, "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=1", "optimizer.lr=0.1"))
    seen = [float(row["val/loss"]) for row in rows(tmp_path / "run" / "metrics.csv")[:-1] if row["val/loss"]]
    assert len(seen) == 4
    assert figures["val/loss"] == pytest.approx(seen[0], abs=1e-6)
    assert abs(seen[-1] - seen[0]) > 1e-3, "best and last do not differ: the test would prove nothing"
    again = evaluate(small(f"ckpt_path='{tmp_path}/run/checkpoints/best.ckpt'", "task=evaluate", folder="again"))
    assert again == pytest.approx(evaluated(figures))
    assert json.loads((tmp_path / "again" / "metrics.json").read_text()).keys() == {"val", "test"}


def test_the_best_is_the_highest_figure(small: Compose, tmp_path: Path) -> None:
    figures = train(small("trainer.max_epochs=4", "trainer.check_val_every_n_epoch=1", "optimizer.lr=1"))
    table = rows(tmp_path / "run" / "metrics.csv")[:-1]
    seen = [float(row["val/map_at_r"]) for row in table if row["val/map_at_r"]]
    assert len(set(seen)) > 1
    assert figures["val/map_at_r"] == pytest.approx(max([*seen, figures["before/map_at_r"]]), abs=1e-6)


@pytest.mark.parametrize(
    ("overrides", "epochs", "steps", "validations"),
    [
        (["trainer.max_epochs=3", "trainer.check_val_every_n_epoch=5"], 3, 12, [11]),
        (["trainer.max_epochs=5", "trainer.check_val_every_n_epoch=2"], 5, 20, [7, 15, 19]),
        (["trainer.max_epochs=4", "trainer.check_val_every_n_epoch=4", "trainer.max_steps=7"], 2, 7, [6]),
        (["trainer.max_epochs=4", "trainer.check_val_every_n_epoch=4", "trainer.max_steps=8"], 2, 8, [7]),
    ],
)
def test_budgets(
    small: Compose, tmp_path: Path, overrides: list[str], epochs: int, steps: int, validations: list[int]
) -> None:
    train(small(*overrides, "test=false"))
    best = state(tmp_path / "run" / "checkpoints" / "best.ckpt")
    last = state(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert (last["epoch"], last["global_step"]) == (epochs - 1, steps)
    assert last["lr_schedulers"][0]["last_epoch"] == steps
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-9), "the schedule spans them"
    assert best["global_step"] - 1 in [-1, *validations]
    logged = [int(row["step"]) for row in rows(tmp_path / "run" / "metrics.csv") if row["val/loss"]]
    assert [step for step in logged if step < steps] == validations


def test_without_a_validation_the_last_weights_are_kept(small: Compose, tmp_path: Path) -> None:
    figures = train(small("trainer.limit_val_batches=0", "trainer.max_epochs=1"))
    assert {name.split("/")[0] for name in figures} == {"test"}
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_dry_run_leaves_no_checkpoint(small: Compose, tmp_path: Path) -> None:
    figures = train(small("trainer.fast_dev_run=true"))
    assert not list(tmp_path.rglob("*.ckpt"))
    assert math.isfinite(figures["val/map_at_r"])


def test_test_is_left_alone_when_told(small: Compose, tmp_path: Path) -> None:
    figures = train(small("test=false", "trainer.max_epochs=1"))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()).keys() == {"raw", "before", "val"}
    assert not [name for name in figures if name.startswith("test/")]


@pytest.mark.parametrize("callbacks", ["default", "[default,ema]"])
def test_training_continues_from_the_last_checkpoint(small: Compose, tmp_path: Path, callbacks: str) -> None:
    """Continue from the checkpoint of epoch 2 of 4: weights, average and schedule are those of the whole run."""
    same = [f"callbacks={callbacks}", "+callbacks.keep._target_=tests.helpers.small.KeepEachLast", "test=false"]
    same += [
        "encoder.dropout=0.0",
        "trainer.check_val_every_n_epoch=1",
        "trainer.max_epochs=4",
    ]
    train(small(*same, folder="whole"))
    path = tmp_path / "whole" / "checkpoints" / "last-of-2.ckpt"
    assert state(path)["global_step"] == 8
    train(small(*same, f"ckpt_path='{path}'", folder="rest"))
    whole, rest = (state(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "rest"))
    assert rest["global_step"] == whole["global_step"] == 16
    for name, value in whole["state_dict"].items():
        assert torch.equal(rest["state_dict"][name], value), name
    for name, value in whole.get("current_model_state", {}).items():
        assert torch.equal(rest["current_model_state"][name], value), name
    assert rest["lr_schedulers"] == whole["lr_schedulers"]


def test_the_average_is_validated_saved_and_tested(small: Compose, tmp_path: Path) -> None:
    """The first epoch counts as the best one, so that the average at the end of training differs."""
    best_first = [
        "monitor=epoch",
        "callbacks.best.mode=min",
        "trainer.check_val_every_n_epoch=1",
        "trainer.max_epochs=3",
    ]
    figures = train(small(*best_first, "callbacks=[default,ema]", "callbacks.ema.decay=0.9", "optimizer.lr=0.2"))
    best = state(tmp_path / "run" / "checkpoints" / "best.ckpt")
    weight = "encoder.head.weight"
    assert (best["state_dict"][weight] - best["current_model_state"][weight]).abs().max() > 1e-3
    seen = [float(row["val/loss"]) for row in rows(tmp_path / "run" / "metrics.csv")[:-1] if row["val/loss"]]
    assert abs(seen[-1] - seen[0]) > 1e-3
    assert figures["val/loss"] == pytest.approx(seen[0], abs=1e-6)
    again = evaluate(small(f"ckpt_path='{tmp_path}/run/checkpoints/best.ckpt'", folder="again"))
    assert figures["val/best_threshold"] == state(tmp_path / "run/checkpoints/best.ckpt")["threshold"] > 0
    assert again == pytest.approx(evaluated(figures))
    best["state_dict"] = best["current_model_state"]
    torch.save(best, tmp_path / "plain.ckpt")
    plain = evaluate(small(f"ckpt_path='{tmp_path}/plain.ckpt'", folder="plain"))
    assert plain["test/loss"] != pytest.approx(figures["test/loss"]), "plain and averaged weights do not differ"


def test_seeds(small: Compose) -> None:
    one, same, other = (
        train(small(f"seed={seed}", "test=false", "trainer.max_epochs=1", folder=name))["val/loss"]
        for seed, name in ((7, "a"), (7, "b"), (8, "c"))
    )
    assert one == same != other


def test_half_precision(small: Compose) -> None:
    figures = train(small("trainer.precision=bf16-mixed", "test=false", "trainer.max_epochs=1"))
    assert math.isfinite(figures["val/loss"])


def test_a_continued_run_keeps_its_csv(small: Compose, tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.csv"
    train(small("test=false", "trainer.max_epochs=1"))
    before = rows(path)
    train(small("test=false", "ckpt_path=last"))
    after = rows(path)
    assert [int(row["step"]) for row in after] == sorted({int(row["step"]) for row in after})
    assert after[0]["train/loss"] == before[0]["train/loss"]
    assert len(after) > len(before)


def test_nan_in_a_batch_is_named(small: Compose) -> None:
    with pytest.raises(UserError, match=r"Tiny: NaN or infinity in \d+ of 12 embeddings at step \d+, sample ids \["):
        train(small("datamodule.poison=5"))


def test_a_checkpoint_of_another_encoder(small: Compose, tmp_path: Path) -> None:
    train(small("test=false", "trainer.max_epochs=1"))
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    message = (
        r"ckpt_path: .*best.ckpt does not fit Tiny, first at encoder.backbone.0.weight; give the options .* see config"
    )
    with pytest.raises(UserError, match=message):
        evaluate(small(f"ckpt_path='{path}'", "encoder.width=9", folder="other"))


def test_a_checkpoint_says_what_it_was_trained_with(small: Compose, tmp_path: Path) -> None:
    train(small("test=false", "trainer.max_epochs=1"))
    (tmp_path / "run" / ".hydra").mkdir()
    (tmp_path / "run" / ".hydra" / "overrides.yaml").write_text("- encoder=mlp\n- margin=0.1\n")
    with pytest.raises(UserError, match=r"trained with: encoder=mlp margin=0.1$"):
        evaluate(small(f"ckpt_path='{tmp_path}/run/checkpoints/best.ckpt'", "encoder.width=9", folder="other"))


def test_no_checkpoint_at_all(small: Compose, tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("nothing")
    with pytest.raises(UserError, match=r"ckpt_path: .*text.ckpt is not a checkpoint of plain tensors"):
        evaluate(small(f"ckpt_path='{tmp_path}/text.ckpt'"))
    with pytest.raises(UserError, match=r"ckpt_path: no such file: nowhere.ckpt"):
        check(small("ckpt_path=nowhere.ckpt"))
