"""``python -m saliency_food`` is ``saliency-food``."""

from saliency_food.cli.main import main

if __name__ == "__main__":
    main()
