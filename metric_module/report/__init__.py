"""Pages a run or a sweep leaves for a reader: one file each, no network."""
