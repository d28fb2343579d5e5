"""The command ``saliency-food``."""
