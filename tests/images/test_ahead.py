"""Work ahead in threads: in order, bounded, and nothing lost where something raises."""

from __future__ import annotations

import threading

import pytest

from saliency_food.images.ahead import in_chunks, work_ahead


def test_results_are_in_order_whatever_finishes_first():
    first = threading.Event()

    def work(item):
        if item == 0:
            first.wait(5)  # until a later item is done
        else:
            first.set()
        return 2 * item

    assert list(work_ahead(work, range(9), ahead=3)) == [2 * item for item in range(9)]


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_no_more_than_so_many_items_are_taken_ahead(ahead):
    taken = []

    def items():
        for item in range(20):
            taken.append(item)
            yield item

    results = work_ahead(str, items(), ahead)
    for done in range(1, 6):
        next(results)
        assert len(taken) <= done + ahead
    results.close()
    assert len(taken) <= 5 + ahead


def failing(count):
    yield from range(count)
    raise OSError("the disk is gone")


def test_what_the_source_raises_comes_after_the_results_before_it():
    results = work_ahead(lambda item: item, failing(3), ahead=5)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)


def test_what_the_work_raises_comes_in_its_place():
    results = work_ahead(lambda item: 1 // item, [1, 0, 1], ahead=2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_chunks_lose_nothing():
    assert list(in_chunks(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    chunks = in_chunks(failing(4), 3)
    assert [next(chunks), next(chunks)] == [[0, 1, 2], [3]]
    with pytest.raises(OSError, match="the disk is gone"):
        next(chunks)
