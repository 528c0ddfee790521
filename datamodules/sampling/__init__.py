"""Samples, their splits, and the samplers and loaders of batches."""
