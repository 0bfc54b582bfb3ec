"""Tokenizers and their training, and the segmentation of text into words and sentences."""
