"""Raw text and records on their way to a batch: sources, cleaning, corpus, and then order and packing."""
