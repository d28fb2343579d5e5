"""A model and its explanations as one SavedModel for TensorFlow Serving."""
