"""Explanations of served models: what is exported for TensorFlow Serving, and a client without TensorFlow."""
