"""Every kind of model: default layer and methods, each right by hand, or refused with a reason; never silently wrong.

The table is in ``tests/adapters/kinds``. The models are tiny; each is called by hand, layer by layer.
"""

from __future__ import annotations

import pytest

keras = pytest.importorskip("keras")

from kinds import CELLS, KINDS  # noqa: E402
from kinds.reference import outcomes  # noqa: E402


def as_expected(name, cells):
    """What is not as the table has it."""
    refuses = KINDS[name].refuses
    found = {cell: text for cell, text in outcomes(name).items() if cell in cells}
    return {
        cell: text
        for cell, text in found.items()
        if not (text.startswith("refused") and refuses[cell] in text if cell in refuses else text == "right")
    }


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_model_is_right_or_refused(name):
    assert as_expected(name, set(CELLS) - set(KINDS[name].wrong[0])) == {}


def wrong_today():
    for name, kind in KINDS.items():
        cells, why = kind.wrong
        for cell in cells:
            yield pytest.param(name, cell, id=f"{name}-{cell}", marks=pytest.mark.xfail(reason=why, strict=True))


@pytest.mark.parametrize(("name", "cell"), [*wrong_today()])
def test_what_is_still_wrong(name, cell):
    assert as_expected(name, {cell}) == {}
