"""Generated parts of the site: names from Python, groups from yaml, files of the repository."""
