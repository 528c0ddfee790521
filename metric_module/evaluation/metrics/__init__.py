"""Metrics that collect embeddings over batches and processes."""
