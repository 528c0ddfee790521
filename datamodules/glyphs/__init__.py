"""Characters as drawn by the fonts of this machine."""
