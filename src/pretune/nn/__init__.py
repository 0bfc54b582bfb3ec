"""Layers that families share: attention, positions, norms, feed-forward, heads, cache."""
