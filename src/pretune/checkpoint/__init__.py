"""Weights on disk: name mapping, the atomic store, folders in Hugging Face layout."""
