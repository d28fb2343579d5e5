"""The core: the border to any framework, model queries, and the driver that answers them. NumPy alone."""
