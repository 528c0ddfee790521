"""Every shipped yaml composes, fits the signature of its ``_target_``, and builds it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf

from metric_module import distances, encoders, miners
from metric_module.config import conf_folder
from metric_module.config.arguments import check_arguments, locate
from metric_module.config.plain import plain
from metric_module.config.schema import Config, TrainerConfig, register
from metric_module.config.trust import vouch_for
from metric_module.evaluation import MetricGroup
from metric_module.tasks.build import build
from metric_module.training.monitor import resolve_monitor

CONF = conf_folder()
GROUPS = [
    "task",
    "encoder",
    "distance",
    "miner",
    "criterion",
    "datamodule",
    "optimizer",
    "scheduler",
    "trainer",
    "logger",
    "callbacks",
    "evaluation",
    "experiment",
]
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
# What an option needs to be built on any machine: no GPU, no package of weights, no class of a user's.
NEEDS = {
    "arrays": ["datamodule.path=arrays.npz"],
    "custom": ["encoder._target_=tests.helpers.small.Tiny"],
    "ddp": ["trainer.accelerator=cpu"],
    "fsdp": ["trainer.accelerator=cpu"],
    "emoji_pretrained": ["encoder.weights=null"],
    "finetune": ["encoder.weights=null"],
    "evaluate": ["ckpt_path=some.ckpt"],
    "freeze_backbone": ["callbacks=[default,freeze_backbone]"],
    "hugging_face": ["datamodule.path=folder", "datamodule.input=image"],
    "cars": ["datamodule.root=somewhere"],
    "cub": ["datamodule.root=somewhere"],
    "fashion_mnist": ["datamodule.root=somewhere"],
    "image_folder": ["datamodule.root=somewhere"],
    "captions": ["datamodule.path=somewhere"],
    "movielens": ["datamodule.path=somewhere"],
    "multi_label": ["datamodule.path=somewhere"],
    "history": ["encoder.count=9"],
    "lookup": ["encoder.count=9"],
    "two_towers": ["encoder.encoders.user.count=9", "encoder.encoders.item.count=9"],
    "territories_minilm": ["encoder.model={tiny_text}"],
    "texts": ["encoder.model={tiny_text}"],
    "text": ["encoder.model={tiny_text}"],
    "manifest": ["datamodule.table=table.csv", "datamodule.text=text"],
    "in_shop": ["datamodule.root=somewhere"],
    "lfw": ["datamodule.root=somewhere"],
    "market": ["datamodule.root=somewhere"],
    "omniglot": ["datamodule.root=somewhere"],
    "sop": ["datamodule.root=somewhere"],
}


vouch_for("tests.helpers")  # the class of encoder=custom


def composed(folder: Path, *overrides: str) -> DictConfig:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=[*overrides, f"output_dir='{folder}'"])


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_builds(group: str, option: str, tmp_path: Path, tiny_text: str) -> None:
    needs = [word.format(tiny_text=tiny_text) for word in NEEDS.get(option, [])]
    cfg = composed(tmp_path, f"{group}={option}", *needs)
    target = OmegaConf.select(cfg, f"{group}._target_")
    if group == "task":
        assert callable(locate("task._target_", str(target)))
    parts = build(cfg)
    built = {
        "encoder": parts.module.encoder,
        "distance": parts.module.criterion.distance,
        "miner": parts.module.criterion.miner,
        "criterion": parts.module.criterion,
        "datamodule": parts.datamodule,
        "trainer": parts.trainer,
    }
    assert isinstance(parts.module.metric, MetricGroup)
    wanted = [locate(f"evaluation.{name}", part._target_) for name, part in cfg.evaluation.items()]
    assert [type(metric) for metric in parts.module.metric.metrics] == wanted
    assert all(metric.distance is parts.module.criterion.distance for metric in parts.module.metric.metrics)
    if group in built:
        assert type(built[group]) is locate(group, str(target))
    assert parts.module.criterion.margin == cfg.margin


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_a_yaml_is_small(group: str, option: str) -> None:
    lines = (CONF / group / f"{option}.yaml").read_text().splitlines()
    most = 20 if group == "experiment" else 14  # an experiment is a whole recipe
    assert len([line for line in lines if line.strip() and not line.startswith("#")]) <= most


@pytest.mark.parametrize(
    ("group", "package", "base"),
    [("distance", distances, "Distance"), ("miner", miners, "Miner"), ("encoder", encoders, "Encoder")],
)
def test_every_shipped_part_has_a_yaml(group: str, package: Any, base: str) -> None:
    """Every class that can be built is the target of a yaml."""
    targets = {str(OmegaConf.load(path)) for path in (CONF / group).glob("*.yaml")}
    classes = [name for name in package.__all__ if inspect.isclass(getattr(package, name))]
    abstract = {
        "Distance",
        "EuclideanForm",
        "Encoder",
        "EmbeddingHead",
        "WindowMiner",
        "SelectingMiner",
        "Miner",
        "Triplets",
        "Uniform",
    }
    for name in set(classes) - abstract:
        assert any(f".{name}'" in target for target in targets), f"{name} has no yaml in conf/{group}"


def test_the_trainer_is_typed_after_lightnings(tmp_path: Path) -> None:
    """Names and defaults of the schema are those of Lightning's Trainer."""
    signature = inspect.signature(Trainer).parameters
    given = {name: field.default for name, field in TrainerConfig.__dataclass_fields__.items() if name != "_target_"}
    assert set(signature) - set(given) == {"logger", "callbacks"}
    for name, default in given.items():
        assert signature[name].default == default, name
    check_arguments("trainer", OmegaConf.to_container(composed(tmp_path).trainer, resolve=True))


def test_shared_values_have_one_owner(tmp_path: Path) -> None:
    cfg = composed(tmp_path, "margin=0.37", "seed=11")
    assert cfg.criterion.margin == 0.37
    assert cfg.criterion.seed == cfg.datamodule.seed == 11
    assert cfg.datamodule.split_seed == 0


@pytest.mark.parametrize(
    ("words", "monitor"),
    [
        ([], "val/map_at_r"),
        (["evaluation=pair_retrieval"], "val/ndcg_at_10"),
        (["evaluation=[pair_retrieval]"], "val/ndcg_at_10"),
        (["evaluation=[instances,retrieval]"], "val/ari"),
        (["evaluation=pair_retrieval", "monitor=val/map"], "val/map"),
        (["experiment=instances"], "val/ari"),
        (["experiment=instances", "evaluation=retrieval"], "val/map_at_r"),
        (["experiment=movielens", "datamodule.path=somewhere"], "val/ndcg_at_10"),
    ],
)
def test_figures_of_another_kind_bring_the_one_to_monitor(tmp_path: Path, words: list[str], monitor: str) -> None:
    cfg = composed(tmp_path, *words)
    metric = MetricGroup([instantiate(node) for node in cfg.evaluation.values()])
    cfg = plain(cfg)
    resolve_monitor(cfg, metric)
    assert cfg.monitor == cfg.callbacks.best.monitor == monitor
    assert all("_target_" in node for node in cfg.evaluation.values())


@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine", "manhattan", "dot_product", "snr"])
def test_a_distance_comes_with_a_miner_that_takes_it(tmp_path: Path, distance: str) -> None:
    assert composed(tmp_path, f"distance={distance}").miner._target_ != "metric_module.miners.DistanceWeighted"
    assert composed(tmp_path, f"distance={distance}", "miner=hard").miner._target_ == "metric_module.miners.Hard"


def test_the_soft_loss(tmp_path: Path) -> None:
    criterion = build(composed(tmp_path, "criterion=soft_triplet", "margin=0")).module.criterion
    assert (criterion.loss, criterion.margin) == ("soft", 0.0)


def test_the_protocol_of_the_reality_check(tmp_path: Path) -> None:
    cfg = composed(tmp_path, "experiment=reality_check")
    assert cfg.test is True
    assert (cfg.datamodule.fold, cfg.datamodule.folds, cfg.datamodule.split_seed) == (0, 4, 0)
    assert (cfg.datamodule.classes_per_batch, cfg.datamodule.samples_per_class) == (8, 4)
    assert cfg.encoder.embedding_dim == 128
    assert cfg.scheduler._target_ == "torch.optim.lr_scheduler.ConstantLR"
    other = composed(tmp_path, "experiment=reality_check", "datamodule=image_folder", "datamodule.root=x", "seed=3")
    assert (other.datamodule.fold, other.datamodule.seed) == (0, 3)


def test_callbacks_combine(tmp_path: Path) -> None:
    cfg = composed(tmp_path, "callbacks=[default,ema,freeze_backbone]")
    assert {"best", "last", "ema", "freeze_backbone", "progress_bar"} <= set(cfg.callbacks)


def test_every_key_of_the_schema_is_documented_by_name() -> None:
    assert set(GROUPS) - {"experiment"} < set(Config.__dataclass_fields__)
