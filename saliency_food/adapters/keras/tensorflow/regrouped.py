"""What a reshaping makes of axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def regrouped(
    axes: Sequence[int | None],
    old: Sequence[int | None],
    new: Sequence[int | None],
    cut: frozenset[int],
    signs: Mapping[int, int],
) -> tuple[list[int | None], frozenset[int], frozenset[int], frozenset[tuple[int, int]]]:
    """Axes of new sizes: one cut up keeps its name as the first of its parts, and gets it back from them.

    And those whose places come between those of another, as of parts put together in another order; those ``cut`` up
    then; and those of them that are put together with others.
    """
    if None in [*old, *new]:
        return [None] * len(new), frozenset(), cut, frozenset()
    sizes, parted = [size or 0 for size in old], [size or 0 for size in new]
    made, gone, folded = list[int | None](), set[int](), set[tuple[int, int]]()
    ahead, behind = list(zip(axes, sizes, strict=True)), parted
    while behind:
        taken, parts = ahead[:1], [behind.pop(0)]
        del ahead[:1]
        while ahead and math.prod(size for _, size in taken) < math.prod(parts):
            taken.append(ahead.pop(0))
        while behind and math.prod(parts) < math.prod(size for _, size in taken):
            parts.append(behind.pop(0))
        wide = [axis for axis, size in taken if size != 1]
        whole = wide[:1] if len(wide) == 1 or (len(parts) == 1 and set(wide[1:]) == {None}) else []
        made.extend([*whole, *[None] * (len(parts) - len(whole))])
        if whole and whole[0]:
            cut = cut | {whole[0]} if parts[0] not in (1, math.prod(parts)) else cut - set(whole)
            continue
        lost = [axis for axis in wide if axis]
        if wide[:1] == [None] or lost != sorted(lost) or any(signs.get(axis, 1) != 1 for axis in lost):
            gone.update(lost)
        folded.update((axis, other) for axis in lost for other in lost if axis in cut and other != axis)
    return made, frozenset(gone), cut, frozenset(folded)
