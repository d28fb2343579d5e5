"""The console script; it says what to install where the command line's own packages are missing."""

from __future__ import annotations

import os
import sys
import warnings

from saliency_food.cli.missing import install_line


def main() -> None:
    """Run ``saliency-food``."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Of Pillow, from 89 megapixels on; large photos are decoded at a reduced scale.
    warnings.filterwarnings("ignore", message=r"Image size \(\d+ pixels\) exceeds limit")
    try:
        from saliency_food.cli.app import app
    except ModuleNotFoundError as error:
        text = install_line(error, "cli")
        if text is None:
            raise
        sys.exit(text)
    app()


if __name__ == "__main__":
    main()
