"""What ``pretune.load`` returns, and how model folders are read, checked and built."""
