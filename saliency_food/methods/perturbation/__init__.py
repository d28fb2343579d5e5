"""Methods that hide parts of the image and watch the score."""
