"""Every mistake on the command line is one line and an exit code, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.command_line import MY_ENCODERS, Command, command_in


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    return command_in(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["encoder=mpl"],
            "encoder=mpl: unknown option; did you mean 'mlp'? allowed: char_conv_net, conv_net, custom, ",
        ),
        (["trainer=foo"], "trainer=foo: unknown option; allowed: ddp, ddp_cpu, default, fsdp"),
        (
            ["callbacks=[default,foo]"],
            "callbacks=foo: unknown option; allowed: before_training, checkpoint, class_neighbours, ",
        ),
        (["encoder=3"], "Config group override must be a string or a list. Got int"),
        (["encodr=mlp"], "unknown key 'encodr': did you mean 'encoder'? allowed: margin, seed, "),
        (["margni=3"], "unknown key 'margni': did you mean 'margin'? allowed: margin, seed, "),
        (["+margni=3"], "unknown key 'margni': did you mean 'margin'? allowed: margin, seed, "),
        (
            ["encoder.widht=4"],
            "unknown key 'widht' in encoder: did you mean 'widths'? allowed: embedding_dim, widths, ",
        ),
        (["encoder.widht=4"], "an argument that its yaml does not list is added with +encoder.widht=..."),
        (
            ["trainer.max_epoch=3"],
            "unknown key 'max_epoch' in trainer: did you mean 'max_epochs'? allowed: accelerator, ",
        ),
        (["margin=abc"], "margin: expected float, got abc"),
        (["margin=null"], "margin: expected float, got null"),
        (["seed=1.5"], "seed: expected int, got 1.5"),
        (["test=maybe"], "test: expected bool | null, got maybe"),
        (["trainer.max_epochs=x"], "trainer.max_epochs: expected int | null, got x"),
        (["margin=-1"], "margin: expected a finite number > 0 for the hinge loss, got -1.0"),
        (["margin=0"], "margin: expected a finite number > 0 for the hinge loss, got 0.0"),
        (["margin=nan"], "margin: expected a finite number > 0 for the hinge loss, got nan"),
        (["margin=-1", "criterion=soft_triplet"], "margin: expected a finite number >= 0 for the soft loss, got -1.0"),
        (
            ["margin=0.1", "criterion.margin=0.3"],
            "margin=0.1 and criterion.margin=0.3 differ: give it once, as margin=0.3",
        ),
        (["seed=-1"], "seed: expected an integer from 0 to 4294967295, got -1"),
        (
            ["margin=0.1,0.2"],
            "margin: expected one value, got 0.1,0.2; add -m to sweep over them, or write a list as [0.1,0.2]",
        ),
        (["margin"], "cannot read 'margin', expected key=value (missing EQUAL at '<EOF>')"),
        (
            ["datamodule.root=my data (1)"],
            "cannot read 'datamodule.root=my data (1)', expected key=value (mismatched input ' (' expecting <EOF>); "
            """for a text with special characters give 'datamodule.root="my data (1)"'""",
        ),
        (["callbacks=[default"], "cannot read 'callbacks=[default', expected key=value ("),
        (["encoder=custom"], "encoder._target_: expected a value, got none; give encoder._target_=my_encoders.Tiny"),
        (["task=evaluate"], "ckpt_path: expected a checkpoint, got none; give ckpt_path=<run>/checkpoints/best.ckpt"),
        (["task.split=test"], "unknown key 'split' in task: allowed: none"),
        (["+task.split=test"], "unknown key 'split' in task: allowed: none; this is task=train"),
        (
            ["task=evaluate", "+task.splits=test"],
            "unknown key 'splits' in task: did you mean 'split'? allowed: split; this is task=evaluate",
        ),
        (["task=embed", "+task.splits=test"], "unknown key 'splits' in task: did you mean 'split'? allowed: split, "),
        (["task=embed", "task.splits=test"], "unknown key 'splits' in task: did you mean 'split'? allowed: split, "),
        (["ckpt_path=nowhere.ckpt"], "ckpt_path: no such file: nowhere.ckpt"),
        (["trainer.profiler='${oc.env:X,\\'a\\'}'"], "mismatched input"),
        (["datamodule.seed=${nothing}"], "datamodule.seed: Interpolation key 'nothing' not found"),
        (
            ["--config-name", "nothing"],
            "Cannot find primary config 'nothing'. Check that it's in your config search path.",
        ),
        (["-m", "margin=0.1,abc"], "margin: expected float, got abc"),
        (
            ["+encoder.widht=4"],
            "encoder.widht: ConvNet has no such argument; did you mean 'widths'? allowed: embedding_dim, ",
        ),
        (
            ["encoder=custom", "encoder._target_=nowhere.Tiny"],
            "encoder._target_: cannot import 'nowhere.Tiny'; expected",
        ),
        (
            ["encoder=custom", "encoder._target_=my_encoders.Tinny"],
            "'my_encoders' has no 'Tinny'; did you mean 'Tiny'? allowed:",
        ),
        (
            ["encoder=custom", "encoder._target_=my_encoders.Wide"],
            "Wide: expected output of shape [B, 16] (embedding_dim=16), got",
        ),
        (["datamodule.samples_per_class=9", "datamodule.short_classes=error"], "9"),
        (["encoder=timm", "encoder.name=resnet1"], "encoder.name: timm has no model 'resnet1'; similar names: "),
        (
            ["trainer.precision=transformer-engine", "trainer.accelerator=cpu"],
            "trainer: a package is missing (Requirement 'transformer_engine",
        ),
        (["trainer.accelerator=abacus"], "trainer: You selected an invalid accelerator name: `accelerator='abacus'`."),
        (
            ["datamodule=image_folder", "datamodule.root=.", "datamodule.on_bad_sample=pray"],
            "error: datamodule.on_bad_sample: expected error or replace, got 'pray'",
        ),
        (
            ["trainer.max_steps=0", "trainer.accelerator=cpu"],
            "trainer.max_steps: expected an integer >= 1, or -1 for no limit, got 0",
        ),
        (
            ["trainer.max_epochs=0", "scheduler=one_cycle", "trainer.accelerator=cpu"],
            "trainer.max_epochs: expected an integer >= 1, or -1 for no limit, got 0",
        ),
        (["optimizer.lr=-1"], "optimizer: Invalid learning rate: -1"),
        (["optimizer.betas=[x,1]"], "optimizer.betas: AdamW expected "),
        (["optimizer.betas=[7,1]"], "optimizer: Invalid beta parameter at index 0: 7"),
        (["~optimizer"], "optimizer: expected what to build, got {}; give optimizer=<option>, --help lists them"),
        (["encoder=null"], "encoder: a run needs one of char_conv_net, "),
        (
            ["+callbacks.more=3"],
            "callbacks.more: expected what to build, with its _target_, got 3; to leave it out give ~callbacks.more",
        ),
        (["~encoder._target_"], "encoder: expected what to build, with its _target_, got {"),
        (["optimizer._partial_=false"], "optimizer._partial_: expected true, as optimizer is built later, with params"),
        (["optimizer._partial_=maybe"], "optimizer._partial_: expected true, as optimizer is built later, with params"),
        (["+scheduler._convert_=7"], "scheduler._convert_: expected one of none, partial, object, all, got 7"),
        (
            ["~scheduler.warmup_fraction", "scheduler._target_=torch.optim.lr_scheduler.StepLR"],
            "scheduler.step_size: StepLR needs this argument; give +scheduler.step_size=...",
        ),
        (
            ["miner._target_=metric_module.distances.Euclidean"],
            "miner: expected a WindowMiner or a SelectingMiner or a Scheduled, got metric_module.distances.Euclidean",
        ),
        (["distance._target_=metric_module.miners.All"], "distance: expected a Distance, got metric_module.miners.All"),
        (
            ["encoder._target_=metric_module.callbacks.EMA"],
            "encoder: expected a Module, got metric_module.callbacks.EMA",
        ),
        (["task=embed", "task.split=null"], "task.split: expected a value such as all, got None"),
        (["task=embed", "~task.format"], "task.format: expected a value such as arrow, got None"),
        (["task=census", "task.margins=[a]"], "task.margins: expected a value such as ["),
        (["seed=4294967296"], "seed: expected an integer from 0 to 4294967295, got 4294967296"),
        (["memory.size=1000000000000"], "memory.size: 1000000000000 embeddings of 128 numbers do not fit into memory"),
        (["hydra.job.chdir=true"], "hydra.job.chdir: the program stays in the folder where it was started"),
        (["hydra.run.dir=my_encoders.py"], "hydra.run.dir: cannot make this folder (File exists): my_encoders.py"),
        ([f"hydra.run.dir={'a' * 300}"], "hydra.run.dir: cannot make this folder (File name too long): aaa"),
    ],
)
def test_a_mistake_is_one_line(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    (tmp_path / "my_encoders.py").write_text(MY_ENCODERS)
    assert command(*words) == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if not line.startswith(("INFO", "WARNING"))]
    assert len(errors) == 1, lines
    assert errors[0].startswith("error: ") and message in errors[0]
    assert ("in task" in message) <= ("is added with" not in errors[0])
    assert ("special characters" in errors[0]) == ("my data (1)" in message)
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {"my_encoders.py"}, "a refused run leaves nothing behind"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ckpt_path=old"], "ckpt_path: expected a file, got the folder old; give ckpt_path=old/checkpoints/best.ckpt"),
        (["task=evaluate", "ckpt_path=old/checkpoints"], "old/checkpoints; give ckpt_path=old/checkpoints/best.ckpt"),
        (["ckpt_path=empty"], "ckpt_path: expected a file, got the folder empty"),
        (
            ["ckpt_path=old/encoder.safetensors"],
            "ckpt_path: expected a checkpoint, got weights alone; give module.encoder_weights=old/encoder.safetensors",
        ),
        (
            ["module.encoder_weights=old"],
            "module.encoder_weights: expected a file, got the folder old; give "
            "module.encoder_weights=old/encoder.safetensors",
        ),
    ],
)
def test_a_folder_in_place_of_a_file_of_it(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    (tmp_path / "old/checkpoints").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "old/checkpoints/best.ckpt").touch()
    (tmp_path / "old/encoder.safetensors").touch()
    assert command(*words) == 2
    assert capsys.readouterr().err.strip().endswith(told)


def test_the_configuration_is_checked_once(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr("metric_module.config.checks._check_margin", seen.append)
    assert command("encoder=custom", "encoder._target_=nowhere.Tiny") == 2  # found by the task, when it builds
    assert len(seen) == 1


def test_a_bug_in_the_users_code_keeps_its_trace(command: Command, tmp_path: Path) -> None:
    (tmp_path / "my_encoders.py").write_text(MY_ENCODERS)
    with pytest.raises(IndexError):
        command("encoder=custom", "encoder._target_=my_encoders.Broken", "trainer.fast_dev_run=true")


@pytest.mark.parametrize("words", [["margin=-1"], ["encodr=mlp"]])
def test_debug_shows_the_trace_of_a_mistake(command: Command, words: list[str]) -> None:
    with pytest.raises(Exception, match=r"margin|encodr"):
        command(*words, "debug=true")


@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", ".hydra/overrides.yaml", "notes.txt"])
def test_a_refused_run_removes_nothing_of_the_users(command: Command, tmp_path: Path, name: str) -> None:
    """Refused by a check, and later, when data and loggers are there."""
    path = tmp_path / "mine/old" / name
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    (tmp_path / "mine/empty").mkdir()
    for folder in ("mine/old", "mine/empty", "mine/new/er"):
        for word in ("margin=-1", "datamodule.classes_per_batch=9999"):
            assert command(word, "trainer.accelerator=cpu", "report=false", f"hydra.run.dir={folder}") == 2
    assert path.read_text() == "precious"
    assert (tmp_path / "mine/empty").is_dir() and not list((tmp_path / "mine/empty").iterdir())
    assert not (tmp_path / "mine/new").exists()
    left = {found for found in (tmp_path / "mine/old").rglob("*") if found.is_file() and found.name != "run.log"}
    assert left <= {path}
