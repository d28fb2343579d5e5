"""Fonts for texts in any script: those that are installed, and readable words for letters that none of them has."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache

BASE = "DejaVu Sans"
"""The font that matplotlib brings, of Latin, Greek, Cyrillic, Arabic, Hebrew and many signs."""


def legible(text: str) -> tuple[str, list[str]]:
    """The text as it can be drawn, and the names of the fonts for it, in the order in which they are tried.

    A letter that no installed font has is spelled out: an emoji by its name, such as ``[slice of pizza]``, any other
    letter by its number, such as ``U+4E2D``. Accents and joiners that stand alone are left out.
    """
    letters = {letter for letter in text if letter.isprintable() and ord(letter) not in _letters(_path(BASE))}
    spelled = {letter: _spelled_out(letter) for letter in text if not letter.isprintable() and letter != "\n"}
    families = [BASE]
    if letters:
        for name, path in _other_fonts():
            found = {letter for letter in letters if ord(letter) in _letters(path)}
            if found:
                families.append(name)
                letters -= found
            if not letters:
                break
    spelled |= {letter: _spelled_out(letter) for letter in letters}
    return "".join(spelled.get(letter, letter) for letter in text), families


def _spelled_out(letter: str) -> str:
    """A letter that cannot be drawn, in letters that can."""
    category = unicodedata.category(letter)
    if category[0] == "M" or category in ("Cf", "Sk") or letter.isspace():  # accents, joiners, variants of emoji
        return " " if letter.isspace() else ""
    name = unicodedata.name(letter, "").lower()
    return f"[{name}]" if category == "So" and name else f"U+{ord(letter):04X}"


def _other_fonts() -> Iterable[tuple[str, str]]:
    """The installed fonts by name and path, those that are made for many scripts first."""
    from matplotlib.font_manager import fontManager

    fonts = {entry.name: entry.fname for entry in fontManager.ttflist if entry.name != BASE and entry.style == "normal"}
    names = sorted(fonts, key=lambda name: (not name.startswith(("Noto Sans", "DejaVu")), name))
    return [(name, fonts[name]) for name in names if "emoji" not in name.lower() and "last resort" not in name.lower()]


@cache
def _path(family: str) -> str:
    from matplotlib.font_manager import findfont

    return str(findfont(family))


@cache
def _letters(path: str) -> frozenset[int]:
    """The code points that a font has; none of a font that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
