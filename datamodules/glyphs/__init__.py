"""Letters drawn by the fonts of this machine."""
