"""A trained encoder behind HTTP: embed, search, identify and compare."""
