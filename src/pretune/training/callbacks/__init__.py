"""What is done around the steps of a training run: one file a callback, each with few methods."""
