"""A run that is resumed with other options, in another place, or over another run."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from metric_module.cli import compose_and_run  # noqa: F401  # imported before the folder of the tests changes
from metric_module.storage.lock import locked
from tests.helpers.command_line import Command, command_in

CONF = ("--config-dir", str(Path(__file__).resolve().parents[1] / "helpers" / "conf"), "trusted=[tests.helpers]")
TINY = ("encoder=tiny", "datamodule=clouds", "miner=all", "trainer.accelerator=cpu", "logger=csv", "report=false")
SHORT = (*TINY, "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "test=false")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        assert command_in(folder, patch)(*CONF, *SHORT, "hydra.run.dir=run") == 0
    return folder / "run"


@pytest.fixture
def command(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The program, in a folder with a copy of that run."""
    shutil.copytree(trained, tmp_path / "run")
    return command_in(tmp_path, monkeypatch)


def state(run: Path) -> Any:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def recorded(run: Path) -> Any:
    return OmegaConf.load(run / "config.yaml")


def files(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optimizer=sgd", "optimizer._target_: the run was trained with torch.optim.AdamW, and resuming it cannot"),
        ("scheduler=one_cycle", "scheduler._target_: the run was trained with metric_module.training.schedules.warmup"),
        ("scheduler.warmup_fraction=0.5", "cannot change that to 0.5; give scheduler.warmup_fraction=0.1, or start"),
        ("memory.size=64", "memory.size: the run was trained with 0, and resuming it cannot change that to 64; give"),
        ("encoder.embedding_dim=8", "encoder.embedding_dim: the run was trained with 4, and resuming it cannot change"),
        ("datamodule.classes_per_batch=999", "datamodule.classes_per_batch: "),
        ("+datamodule.noise2=1", "datamodule.noise2: the run was trained with nothing, and resuming it cannot change"),
        ("datamodule.noise=0.5", "give datamodule.noise=0.8, or start a new run from its weights, module.encoder_"),
        ("callbacks=[default,ema]", "callbacks.ema._target_: the run was trained with nothing"),
        ("miner=semihard", "miner._target_: the run was trained with metric_module.miners.All"),
        ("seed=5", "seed: the run was trained with 0, and resuming it cannot change that to 5; give seed=0, or"),
        ("trainer.max_epochs=0", "trainer.max_epochs: expected an integer >= 1, or -1 for no limit, got 0"),
    ],
)
def test_a_refused_change_leaves_the_run_as_it_was(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, message: str
) -> None:
    before = files(tmp_path / "run")
    word = f"+{word}" if word.startswith("datamodule.classes") else word
    assert command(*CONF, "resume=run", word) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("INFO", "WARNING"))]
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0], lines
    after = files(tmp_path / "run")
    assert {**after, "run.log": b""} == {**before, "run.log": b""}
    assert command(*CONF, "resume=run", "trainer.max_epochs=2") == 0
    assert state(tmp_path / "run")["global_step"] == 8


def test_changed_options_are_applied_and_named(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["trainer.max_epochs=2", "optimizer.lr=0.0003", "optimizer.weight_decay=0", "optimizer.betas=[0.8,0.9]"]
    assert command(*CONF, "resume=run", *words, "module.encoder_weights=mine", "margin=0.2") == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("resume: ")]
    assert sorted(told) == [
        "resume: margin: 0.4 -> 0.2",
        "resume: module.encoder_weights stays null; mine is for a new run",
        "resume: optimizer.betas: [0.9, 0.999] -> [0.8, 0.9]",
        "resume: optimizer.lr: 0.003 -> 0.0003",
        "resume: optimizer.weight_decay: 0.05 -> 0",
        "resume: trainer.max_epochs: 1 -> 2",
    ]
    after = state(tmp_path / "run")
    (group,) = after["optimizer_states"][0]["param_groups"]
    assert (group["initial_lr"], group["weight_decay"], list(group["betas"])) == (0.0003, 0, [0.8, 0.9])
    assert after["lr_schedulers"][0]["base_lrs"] == [0.0003]
    cfg = recorded(tmp_path / "run")
    assert (cfg.optimizer.lr, cfg.margin, cfg.module.encoder_weights) == (0.0003, 0.2, None)
    assert "optimizer.lr=0.0003" in yaml.safe_load((tmp_path / "run/.hydra/overrides.yaml").read_text())


def test_a_run_without_changes_says_nothing(command: Command, tmp_path: Path, capsys: Any) -> None:
    assert command(*CONF, "resume=run") == 0
    assert "resume: " not in capsys.readouterr().out
    assert command(*CONF, *SHORT, "hydra.run.dir=run", "ckpt_path=last") == 0
    assert "resume: " not in capsys.readouterr().out


def test_a_moved_run_keeps_its_best_checkpoint(command: Command, tmp_path: Path) -> None:
    def best(checkpoint: Any) -> Any:
        (found,) = [value for key, value in checkpoint["callbacks"].items() if key.startswith("ModelCheckpoint")]
        return found

    (tmp_path / "run").rename(tmp_path / "moved")
    first = state(tmp_path / "moved")
    good = best(first)["best_model_score"] = torch.tensor(0.99)  # so that the second epoch is worse
    best(first)["best_k_models"] = {best(first)["best_model_path"]: good}
    best(first)["kth_value"] = good
    torch.save(first, tmp_path / "moved/checkpoints/last.ckpt")
    path = tmp_path / "moved/checkpoints/best.ckpt"
    before = path.read_bytes()
    assert command(*CONF, "resume=moved", "trainer.max_epochs=2") == 0
    after = best(state(tmp_path / "moved"))
    assert after["best_model_score"] == good
    assert after["best_model_path"] == str(path.resolve()) and path.read_bytes() == before


def test_a_second_training_in_the_same_folder_is_refused(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(tmp_path / "run")
    checkpoint = f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt"
    for words in ((*SHORT,), (*SHORT, checkpoint), ("task=evaluate", checkpoint), ("task=census", checkpoint)):
        assert command(*CONF, *words, "margin=0.3", "hydra.run.dir=run") == 2
        message = f"error: hydra.run.dir: {tmp_path}/run holds a run; to continue its training give resume={tmp_path}"
        assert capsys.readouterr().err.startswith(message)
    assert files(tmp_path / "run") == before


def test_two_processes_at_once(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(tmp_path / "run", wait=False), pytest.MonkeyPatch.context() as patch:
        patch.delenv("LIGHTNING_TRIPLETS_HOLDS")  # an independent process does not inherit it
        assert command(*CONF, "resume=run") == 2
        patch.setenv("LIGHTNING_TRIPLETS_HOLDS", "")
    message = f"error: hydra.run.dir: another process works in {tmp_path}/run; wait for its end, or give another folder"
    assert capsys.readouterr().err == f"{message}\n"


def test_a_checkpoint_of_a_run_on_other_data(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*CONF, *SHORT, "trainer.max_epochs=2", "ckpt_path=run/checkpoints/last.ckpt", "hydra.run.dir=new")
    monkeypatch.setattr("tests.helpers.small.CLASSES", 19)
    assert command(*words) == 2
    said = capsys.readouterr().err
    assert "error: ckpt_path: the checkpoint was trained on other data, or on another split of it" in said
    assert "give module.encoder_weights=<its run>/encoder.safetensors" in said
    assert not (tmp_path / "new").exists()
    path = tmp_path / "run/checkpoints/last.ckpt"
    old = torch.load(path, weights_only=True)
    del old["Clouds"]["fingerprint"]  # as earlier versions wrote it
    torch.save(old, path)
    assert command(*words) == 0


def test_the_log_has_no_lines_about_weights_only(trained: Path) -> None:
    assert "weights_only" not in (trained / "run.log").read_text()


@pytest.mark.parametrize("place", ["training_step", "on_validation_epoch_end"])
def test_a_full_disk_is_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    """Whoever writes, such as a logger that comes with Lightning."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "events")

    monkeypatch.setattr(f"metric_module.module.TripletModule.{place}", full)
    assert command(*CONF, *SHORT, "hydra.run.dir=new") == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: cannot write events (No space left on device)"
