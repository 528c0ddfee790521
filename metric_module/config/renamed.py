"""Old and new names of ``_target_``, so that runs made under the old names can be evaluated and resumed."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, read_write

RENAMED = {
    "datamodules.augment.Augment": "datamodules.Augment",
    "datamodules.captions.CaptionsDataModule": "datamodules.CaptionsDataModule",
    "datamodules.emoji.EmojiDataModule": "datamodules.EmojiDataModule",
    "datamodules.emoji_scenes.EmojiScenesDataModule": "datamodules.EmojiScenesDataModule",
    "datamodules.glyphs.GlyphDataModule": "datamodules.GlyphDataModule",
    "datamodules.interactions.InteractionsDataModule": "datamodules.InteractionsDataModule",
    "datamodules.multi_label.MultiLabelDataModule": "datamodules.MultiLabelDataModule",
    "datamodules.published_sets.PublishedDataModule": "datamodules.PublishedDataModule",
    "metric_module.callbacks.MetricsCSV": "metric_module.loggers.MetricsCSV",
    "metric_module.callbacks.freeze.FreezeBackbone": "metric_module.callbacks.FreezeBackbone",
    "metric_module.callbacks.metrics_csv.MetricsCSV": "metric_module.loggers.MetricsCSV",
    "metric_module.callbacks.progress.ProgressBar": "metric_module.callbacks.ProgressBar",
    "metric_module.cli.sweep_report.SweepReport": "metric_module.sweeps.lifecycle.SweepReport",
    "metric_module.criterion.TripletCriterion": "metric_module.TripletCriterion",
    "metric_module.encoders.multi.MultiEncoder": "metric_module.encoders.MultiEncoder",
    "metric_module.evaluation.metric.ClusteringMetric": "metric_module.evaluation.ClusteringMetric",
    "metric_module.evaluation.metric.FewShotMetric": "metric_module.evaluation.FewShotMetric",
    "metric_module.evaluation.metric.InstanceMetric": "metric_module.evaluation.InstanceMetric",
    "metric_module.evaluation.metric.RetrievalMetric": "metric_module.evaluation.RetrievalMetric",
    "metric_module.evaluation.metric.VerificationMetric": "metric_module.evaluation.VerificationMetric",
    "metric_module.evaluation.pair_metric.PairRetrievalMetric": "metric_module.evaluation.PairRetrievalMetric",
    "metric_module.schedules.warmup_cosine": "metric_module.training.schedules.warmup_cosine",
}
"""The new names are all in :data:`metric_module.config.trust.PARTS`."""


def rename_targets(node: Any) -> None:
    """Replace every old ``_target_`` in a configuration, nested ones included.

    Args:
        node: A configuration, changed in place; nothing is resolved.

    Example:
        >>> cfg = OmegaConf.create({"scheduler": {"_target_": "metric_module.schedules.warmup_cosine"}})
        >>> rename_targets(cfg)
        >>> cfg.scheduler._target_
        'metric_module.training.schedules.warmup_cosine'
    """
    if not isinstance(node, DictConfig | ListConfig):
        return
    keys: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
            continue
        value: Any = node[key]
        if key == "_target_" and value in RENAMED:
            with read_write(node):
                node[key] = RENAMED[value]
        rename_targets(value)
