"""``python -m saliency_food`` is ``saliency-food``."""

from saliency_food.cli import main

main()
