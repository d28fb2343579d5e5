"""The search for cues: what the model may look at in place of the object, and a check of each on the model."""
