"""``pretune quickstart``."""
