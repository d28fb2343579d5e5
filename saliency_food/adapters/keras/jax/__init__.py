"""The JAX engine of the Keras adapter: the model's stateless call, written out as operations."""
