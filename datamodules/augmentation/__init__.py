"""Augmentation of batches by key, without state."""
