"""``pretune runs``: list, show, compare, adjust."""
