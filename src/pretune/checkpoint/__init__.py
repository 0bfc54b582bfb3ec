"""Weights on disk: name mapping, folders in Hugging Face layout, GGUF files."""
