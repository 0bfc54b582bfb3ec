"""Bytes to records: discovery, encodings, compression, archives, standard input, one reader a file format."""
