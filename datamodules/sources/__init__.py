"""Readers of images, texts, vectors and tables."""
