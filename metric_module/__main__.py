"""Run a task: ``python -m metric_module miner=semihard margin=0.1``, the same as ``lightning-triplets``."""

from __future__ import annotations

import sys

from metric_module.cli import main

if __name__ == "__main__":
    sys.exit(main())
