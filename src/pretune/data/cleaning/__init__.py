"""Cleaning: small pure functions of a text, and what remembers texts to find duplicates."""
