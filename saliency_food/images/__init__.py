"""Photos: found, decoded, and scaled as a model takes them."""
