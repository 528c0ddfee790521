"""The command line, as a user meets it: commands of the README, a sweep, an encoder of one's own."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metric_module.config import conf_folder
from metric_module.storage.checkpoints import load_checkpoint
from metric_module.storage.weights import read_tensors
from tests.helpers.command_line import MY_ENCODERS, Command, command_in
from tests.helpers.forked import run_program

ROOT = Path(__file__).resolve().parents[2]
MLP = ["encoder=mlp", "encoder.hidden=[16]"]
QUICK = [
    "trainer.accelerator=cpu",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "datamodule.classes_per_batch=8",
    "datamodule.eval_batch_size=64",
]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    return command_in(tmp_path, monkeypatch)


def shell(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run_program([sys.executable, str(ROOT / "run.py"), *words], folder)


def only(folder: Path) -> Path:
    found = list(folder.iterdir())
    assert len(found) == 1, found
    return found[0]


def test_an_encoder_of_ones_own(tmp_path: Path) -> None:
    """Train from a folder outside the repository, with a class in the user's own file."""
    (tmp_path / "my_encoders.py").write_text(MY_ENCODERS)
    done = shell(tmp_path, "encoder=custom", "encoder._target_=my_encoders.Tiny", "trainer.max_steps=2", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "Tiny, " in done.stdout and "map_at_r" in done.stdout
    folder = only(tmp_path / "runs" / "train")
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "metrics.json", "metrics.csv", "checkpoints", "tensorboard", ".hydra"} <= names
    assert 0 <= json.loads((folder / "metrics.json").read_text())["test"]["recall_at_1"] <= 1
    assert not [path for path in tmp_path.rglob("*") if "=" in path.name or "," in path.name]


def test_an_encoder_of_ones_own_by_a_yaml(tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my_encoders.py").write_text(MY_ENCODERS)
    (tmp_path / "my_conf" / "encoder").mkdir(parents=True)
    (tmp_path / "my_conf" / "encoder" / "tiny.yaml").write_text(
        "_target_: my_encoders.Tiny\nembedding_dim: 5\ngrow: 2\n"
    )
    words = ["encoder=tiny", "encoder.grow=3", "trusted=[my_encoders]", "trainer.max_steps=2"]
    assert command("--config-dir", "my_conf", *words, *QUICK) == 0
    assert "Tiny, 2,895 parameters" in capsys.readouterr().out


NOT_DETERMINISTIC = """
import torch
from metric_module import Encoder


class Unpooled(Encoder):
    embedding_dim = 8

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 8)

    def forward(self, inputs):
        pooled, places = torch.nn.functional.max_pool2d(inputs, 2, return_indices=True)
        wide = torch.nn.functional.max_unpool2d(pooled, places, 2)  # has no deterministic version, on no device
        return torch.nn.functional.normalize(self.layer(wide.mean(dim=(2, 3))), dim=1)
"""


def test_operators_without_a_deterministic_version(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default training names them in a warning; ``trainer.deterministic=true`` rejects them in one line."""
    (tmp_path / "unpooled.py").write_text(NOT_DETERMINISTIC)
    monkeypatch.delitem(sys.modules, "unpooled", raising=False)
    words = ["encoder=custom", "encoder._target_=unpooled.Unpooled", "trainer.fast_dev_run=true", *QUICK]
    with pytest.warns(UserWarning, match="max_unpool\\S* does not have a deterministic implementation"):
        assert command(*words) == 0
    capsys.readouterr()
    assert command(*words, "trainer.deterministic=true") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: trainer.deterministic: max_unpool")
    assert said.endswith("give trainer.deterministic=warn to train with it and be warned")


@pytest.mark.parametrize(
    "words",
    [
        ["miner=semihard", "seed=7"],
        ["distance=cosine", *MLP],
        ["distance=squared_euclidean", "miner=facenet", "margin=0.2", *MLP],
        ["margin=0.1", *MLP],
        ["criterion=soft_triplet", "margin=0", *MLP],
        ["encoder=timm", "encoder.name=resnet18"],
        ["trainer.precision=bf16-mixed", *MLP],
    ],
)
def test_commands_of_the_readme(command: Command, tmp_path: Path, words: list[str]) -> None:
    assert command("trainer.fast_dev_run=true", *QUICK, *words) == 0
    assert json.loads((only(tmp_path / "runs" / "train") / "metrics.json").read_text()).keys() == {"val", "test"}


def test_train_then_evaluate(command: Command, tmp_path: Path) -> None:
    short = ["trainer.max_epochs=3", "trainer.limit_train_batches=1", "test=false"]
    assert command(*MLP, *short, *QUICK) == 0
    folder = only(tmp_path / "runs" / "train")
    best = folder / "checkpoints" / "best.ckpt"
    assert command("task=evaluate", f"ckpt_path={best}", *MLP, *QUICK) == 0
    found = json.loads((only(tmp_path / "runs" / "evaluate") / "metrics.json").read_text())
    trained = json.loads((folder / "metrics.json").read_text())
    assert trained.keys() == {"raw", "before", "val"}
    assert trained["val"].pop("best_threshold") > 0 and trained["val"].pop("best_step") >= 0  # of a training alone
    assert found["val"] == pytest.approx(trained["val"])
    assert "test" in found


def test_evaluation_with_other_options_names_the_right_ones(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*MLP, "trainer.max_steps=1", "test=false", *QUICK) == 0
    best = only(tmp_path / "runs" / "train") / "checkpoints" / "best.ckpt"
    assert command("task=evaluate", f"ckpt_path={best}", "encoder=conv_net", *QUICK) == 2
    assert "give the options it was trained with: encoder=mlp encoder.hidden=[16]" in capsys.readouterr().err


@pytest.mark.integration
def test_wandb_offline(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert command("logger=wandb", *MLP, "trainer.max_steps=1", "test=false", *QUICK) == 0
    folder = only(tmp_path / "runs" / "train")
    assert any((folder / "wandb").glob("offline-run-*"))
    assert (folder / "metrics.csv").is_file()


@pytest.mark.integration
def test_a_sweep_survives_a_failing_job(tmp_path: Path) -> None:
    """Jobs have processes of their own; the failed one is named, the other finishes, and test is not measured."""
    done = shell(tmp_path, "-m", "margin=-1,0.3", *MLP, "trainer.fast_dev_run=true", *QUICK)
    assert done.returncode == 1
    assert "error: margin: expected a finite number > 0 for the hinge loss, got -1.0" in done.stderr
    assert "error: job 0 (margin=-1 " in done.stderr and "failed with exit code 2" in done.stderr
    sweep = only(tmp_path / "sweeps")
    assert json.loads((sweep / "0" / "job.json").read_text())["exit_code"] == 2
    with (sweep / "sweep.csv").open(newline="") as file:
        assert [(row["margin"], row["status"]) for row in csv.DictReader(file)] == [("-1", "failed"), ("0.3", "done")]
    assert "margin: expected a finite number &gt; 0 for the hinge loss, got -1.0" in (sweep / "sweep.html").read_text()
    assert json.loads((sweep / "1" / "metrics.json").read_text()).keys() == {"val"}
    assert "margin: 0.3" in (sweep / "1" / "config.yaml").read_text()
    assert not (tmp_path / "runs").exists()


WITHOUT_TORCH = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from metric_module.cli import main
try:
    code = main()
except SystemExit as stop:
    code = stop.code
print("torch" if "torch" in sys.modules else "nothing heavy was imported")
sys.exit(code)
"""


def test_mistakes_answer_at_once(tmp_path: Path) -> None:
    for words, code in ((["encodr=mlp"], 2), (["--cfg", "job"], 0), (["--help"], 0), (["margin=-1"], 2)):
        command = [sys.executable, "-c", WITHOUT_TORCH, *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, "torch" in done.stdout.splitlines()[-1]) == (code, False), (words, done.stderr)
    assert not list(tmp_path.iterdir())


def test_help_explains_the_groups(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--help") == 0
    out = capsys.readouterr().out
    for line in (
        "encoder: " + ", ".join(sorted(path.stem for path in (conf_folder() / "encoder").glob("*.yaml"))),
        "criterion: soft_triplet, triplet",
        "trainer: ddp, ddp_cpu, default, fsdp",
    ):
        assert line in out
    for example in (
        "python run.py -m margin=0.05,0.1,0.2",
        "encoder._target_=my_encoders.Tiny",
        "task=evaluate ckpt_path=",
    ):
        assert example in out


@pytest.mark.integration
def test_two_processes_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "my_encoders.py").write_text(MY_ENCODERS)
    found = []
    for devices in (1, 2):
        words = (
            "encoder=custom",
            "encoder._target_=my_encoders.Tiny",
            "optimizer=sgd",
            "trainer=ddp_cpu",
            "logger=csv",
        )
        steps = ("trainer.max_steps=4", "trainer.log_every_n_steps=1", f"trainer.devices={devices}", "test=false")
        done = shell(tmp_path, *words, *steps, *QUICK, f"hydra.run.dir=on_{devices}")
        assert done.returncode == 0, done.stderr
        with (tmp_path / f"on_{devices}/metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        found.append([float(row["train/loss"]) for row in rows if row.get("train/loss")])
    assert len(found[0]) == 4
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} <= {"on_1", "on_2", "__pycache__"}


@pytest.mark.integration
def test_sharded_weights_from_the_command_line(tmp_path: Path) -> None:
    """The best checkpoint is measured and written as safetensors, and one process continues from the last."""
    (tmp_path / "my_encoders.py").write_text(MY_ENCODERS)
    own = ("encoder=custom", "encoder._target_=my_encoders.Tiny", *QUICK)
    words = ("trainer=fsdp", "trainer.devices=2", "trainer.max_steps=4", "test=false", "hydra.run.dir=mine")
    done = shell(tmp_path, *own, *words)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    run = tmp_path / "mine"
    best = load_checkpoint(run / "checkpoints/best.ckpt")["state_dict"]
    tensors, _ = read_tensors(run / "encoder.safetensors", "test")
    assert tensors and all(torch.equal(best[f"encoder.{name}"], value) for name, value in tensors.items())
    done = shell(tmp_path, *own, "resume=mine", "trainer=default", "trainer.devices=1", "trainer.max_steps=5")
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(run / "checkpoints/last.ckpt")["global_step"] == 5
