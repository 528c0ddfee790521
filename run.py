"""Run a task from the command line: ``python run.py miner=semihard margin=0.1``; ``--help`` explains.

Heavy imports happen inside the task, so that a mistake on the command line is answered at once.
"""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from metric_module.cli import job, run
from metric_module.config.schema import register

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float | None:
    """Run the task of the configuration and return the monitored figure, for a sweep."""
    return job(cfg)


if __name__ == "__main__":
    sys.exit(run(main))
