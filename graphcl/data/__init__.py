"""From tables to arrays: interactions, sequences, splits, readers, the data doctor, the data set registry."""
