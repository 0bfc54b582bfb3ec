"""What fits a text, a machine and a deadline."""
