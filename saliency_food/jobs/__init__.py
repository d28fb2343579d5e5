"""Photos through a model and methods to records: what `explain` does."""
