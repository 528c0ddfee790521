"""Files of a run: atomic writes, checkpoints, weights and folders."""
