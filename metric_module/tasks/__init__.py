"""Tasks, callable from Python with a composed configuration: ``train(cfg)``, ``evaluate(cfg)``."""

from metric_module.tasks.census import census
from metric_module.tasks.embedding.task import embed
from metric_module.tasks.evaluate import evaluate
from metric_module.tasks.export import export
from metric_module.tasks.search import search
from metric_module.tasks.serve import serve
from metric_module.tasks.train import train

__all__ = ["census", "embed", "evaluate", "export", "search", "serve", "train"]
