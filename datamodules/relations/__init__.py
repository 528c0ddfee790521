"""Data modules of queries and references: captions, interactions, several labels."""
