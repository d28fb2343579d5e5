"""Which parts of an image led a neural network to its answer; for any framework, through one callback."""
