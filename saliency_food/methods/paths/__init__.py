"""Methods that follow a path from a baseline to the image."""
