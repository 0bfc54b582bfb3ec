"""One file an architecture, read from top to bottom."""
