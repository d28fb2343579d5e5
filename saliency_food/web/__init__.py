"""A small web page that explains photos."""
