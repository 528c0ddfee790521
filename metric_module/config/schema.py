"""Types of the configuration: a wrong value or an unknown key fails before anything heavy is imported.

The groups are open nodes: each takes the keys of the yaml that is chosen for it, and those are compared with the
signature of its ``_target_`` before it is built. The trainer is always Lightning's, so its arguments are typed here,
with its defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

KEPT = ("encoder", "distance", "miner", "criterion", "margin", "datamodule")
"""Keys of the configuration that a checkpoint keeps: the weights and the figures depend on them."""


@dataclass
class TrainerConfig:
    """Arguments of ``lightning.pytorch.Trainer`` that are plain values; a test compares them with its signature."""

    _target_: str = MISSING
    accelerator: str = "auto"
    strategy: Any = "auto"
    devices: Any = "auto"
    num_nodes: int = 1
    precision: Any = None
    fast_dev_run: Any = False
    max_epochs: int | None = None
    min_epochs: int | None = None
    max_steps: int = -1
    min_steps: int | None = None
    max_time: Any = None
    limit_train_batches: Any = None
    limit_val_batches: Any = None
    limit_test_batches: Any = None
    limit_predict_batches: Any = None
    overfit_batches: Any = 0.0
    val_check_interval: Any = None
    check_val_every_n_epoch: int | None = 1
    num_sanity_val_steps: int | None = None
    log_every_n_steps: int | None = None
    enable_checkpointing: bool | None = None
    enable_progress_bar: bool | None = None
    enable_model_summary: bool | None = None
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str | None = None
    deterministic: Any = None
    benchmark: bool | None = None
    inference_mode: bool = True
    use_distributed_sampler: bool = True
    profiler: Any = None
    detect_anomaly: bool = False
    barebones: bool = False
    plugins: Any = None
    sync_batchnorm: bool = False
    reload_dataloaders_every_n_epochs: int = 0
    default_root_dir: str | None = None
    enable_autolog_hparams: bool = True
    model_registry: str | None = None


@dataclass
class ModuleConfig:
    """Arguments of :class:`metric_module.TripletModule` that are plain values, and the encoder's initial weights."""

    encode_chunk_size: int | None = None
    gather: bool = True
    lr_scale: Any = None
    encoder_weights: str | None = None
    both_ways: bool = False


@dataclass
class MemoryConfig:
    """Cross-batch memory: past embeddings as additional references; size 0 switches it off."""

    size: int = 0
    warmup_steps: int = 0


@dataclass
class Config:
    """The whole configuration: shared values, and one node per group."""

    margin: float = 0.4
    seed: int = 0
    monitor: str | None = None
    ckpt_path: str | None = None
    query: str | None = None
    gallery: str | None = None
    port: int | None = None
    test: bool | None = None
    debug: bool = False
    report: bool = True
    trusted: list[str] = field(default_factory=list)
    output_dir: str | None = "${hydra:runtime.output_dir}"
    module: ModuleConfig = field(default_factory=ModuleConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    task: dict[str, Any] = field(default_factory=dict)
    encoder: dict[str, Any] = field(default_factory=dict)
    distance: dict[str, Any] = field(default_factory=dict)
    miner: dict[str, Any] = field(default_factory=dict)
    criterion: dict[str, Any] = field(default_factory=dict)
    datamodule: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)


def register() -> None:
    """Register the schema with Hydra under the name ``schema``."""
    ConfigStore.instance().store(name="schema", node=Config, provider="lightning-triplets")
