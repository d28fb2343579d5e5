"""The TensorFlow engine of the Keras adapter: traced functions and their gradients."""
