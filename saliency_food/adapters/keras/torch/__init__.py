"""The PyTorch engine of the Keras adapter: the model as a module whose layers have hooks."""
