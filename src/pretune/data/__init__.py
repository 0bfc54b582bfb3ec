"""Sources, deduplication, shards, windows, order, packing: text on its way to a batch."""
