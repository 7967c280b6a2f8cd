"""One published method a file; no files, devices or trainers here."""
