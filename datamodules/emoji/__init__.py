"""The emoji data set, shipped with the package, and scenes composed of it."""
