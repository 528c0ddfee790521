"""Sweeps: jobs in processes of their own, their ledger, and the page that compares them."""
