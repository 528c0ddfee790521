"""What the site shows besides the hand-written pages: names from Python, groups from yaml, files of the repository."""
