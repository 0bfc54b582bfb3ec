"""AdamW, Adafactor, Muon and SGD, and their state as plain named tensors."""
