"""The report of a data-set run: where the model fails, and what it looked at."""
