"""One file a benchmark: ``ABOUT``, ``NEEDS`` and ``run(options) -> dict``; the folder is the registry."""
