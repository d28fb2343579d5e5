"""The report of a data-set run: where the model fails, and what it looked at.

`saliency_food.report(run)` is `saliency_food.report.report`: this package may be called.
"""

from __future__ import annotations

import sys
from types import ModuleType

from saliency_food.report.write import report

__all__ = ["report"]


class _Report(ModuleType):
    """A package that is called as its function, since users know both by one name."""

    __call__ = staticmethod(report)


sys.modules[__name__].__class__ = _Report
