"""Samples shown in the report: queries, confused classes and mined triplets."""
