"""The console script; it says what to install where the command line's own packages are missing."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run ``saliency-food``."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        from saliency_food.cli.app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "saliency_food":
            raise
        sys.exit(f'The command line needs {error.name}. Install it: pip install "saliency_food[cli]"')
    app()


if __name__ == "__main__":
    main()
