"""pretune: raw text in, a Transformer language model out."""
