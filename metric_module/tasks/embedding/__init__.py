"""Embeddings of a whole data set, written to one file."""
