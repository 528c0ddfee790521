"""Sweeps: each job runs in its own process; a ledger and a page compare the jobs."""
