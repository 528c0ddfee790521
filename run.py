"""Run a task from a checkout: ``python run.py miner=semihard margin=0.1``; ``--help`` explains.

The same as ``lightning-triplets`` and ``python -m metric_module``. The function under ``@hydra.main`` is in
``metric_module/cli/entry.py``; completion in fish works only for scripts that contain that word.
"""

from __future__ import annotations

import sys

from metric_module.cli import main

if __name__ == "__main__":
    sys.exit(main())
