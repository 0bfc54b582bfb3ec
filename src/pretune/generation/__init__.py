"""Decoding: sampling as pure functions of logits, and the loop that draws tokens."""
