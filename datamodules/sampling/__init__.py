"""Samples, their splits, and the order in which batches draw them."""
