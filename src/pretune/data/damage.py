"""How a file that ends before its end is told from one that is whole."""

from __future__ import annotations


class Damage(Exception):
    """A file cannot be read on from here; what came before is good, and the reason is a sentence."""
