"""Records in, predictions out: batches, windows gathered."""
