"""Colours that mean something, readable on light and dark."""

COLOURS = {
    "easy": "#3f9c5a",
    "semi-hard": "#c9a227",
    "hard": "#d1495b",
    "positive": "#3b82c4",
    "negative": "#d9772b",
    "neutral": "#8a8f98",
}
