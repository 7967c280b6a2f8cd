"""Data in, model, metrics and artefacts out: the only rooms that know the training framework."""
