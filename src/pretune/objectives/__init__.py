"""One file an objective: a feature in, a loss out."""
