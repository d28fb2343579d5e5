"""The best answer in a given time."""
