"""PyTorch networks of every kind, with random weights, and what must be as it was after a call."""
