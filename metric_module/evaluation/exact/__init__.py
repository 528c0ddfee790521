"""Exact ranks and counts over all pairs, independent of blocks and precision."""
