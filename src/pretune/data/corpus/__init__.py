"""Text as token shards on disk, and the windows and pairs that are read from them."""
