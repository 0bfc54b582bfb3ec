"""The verbs as Python functions, a module or a folder each, and the life of a run."""
