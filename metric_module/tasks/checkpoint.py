"""What a checkpoint was trained with, kept inside it."""

from __future__ import annotations

from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from metric_module.config.renamed import rename_targets
from metric_module.config.trust import check_configuration

KEPT = ("encoder", "distance", "miner", "criterion", "margin", "datamodule")


def kept_configuration(cfg: DictConfig) -> dict[str, Any]:
    """What a checkpoint keeps: what the weights and the figures depend on, as plain values."""
    whole = OmegaConf.to_container(cfg)
    assert isinstance(whole, dict)
    return {str(key): whole[key] for key in KEPT}


def as_trained(cfg: DictConfig, checkpoint: dict[str, Any]) -> DictConfig:
    """A configuration in which what the command line does not say is as the checkpoint was trained.

    Args:
        cfg: The composed configuration.
        checkpoint: What was read from the file.

    Returns:
        The same configuration if the checkpoint has none, or if Hydra did not start this process.

    Raises:
        UserError: If the checkpoint names what nobody vouched for.
    """
    kept = checkpoint.get("config")
    if not isinstance(kept, dict) or not HydraConfig.initialized():
        return cfg
    overrides = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    said = [override.key_or_group for override in overrides]
    merged = cfg.copy()
    with open_dict(merged):
        for key in (key for key in KEPT if key in kept and key not in said):
            merged[key] = kept[key]
        for key in said:
            if key.split(".")[0] in kept and "." in key and key.split(".")[0] not in said:
                OmegaConf.update(merged, key, OmegaConf.select(cfg, key))
    rename_targets(merged)
    check_configuration(merged)
    return merged
