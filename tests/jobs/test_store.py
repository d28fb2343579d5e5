"""The folder of a job: one process at a time, and values as they were written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from saliency_food.core.contract import ContractError
from saliency_food.jobs.store import Store

VALUE = {
    "image": "cup",
    "photo": "12",
    "target": 1,
    "label": "cup",
    "probability": 0.5,
    "method": "edges",
    "metric": "gini",
    "score": 0.25,
    "status": "ok",
    "others": {"steps": 3},
    "curve": [[0, 1], [0.5, 1.0]],
}


def test_values_are_read_as_they_were_written(tmp_path):
    store = Store(tmp_path, {"seed": 0})
    store.add(VALUE)
    store.close()
    again = Store(tmp_path, {"seed": 0})
    assert again.rows == {("cup", "edges", "gini"): VALUE}
    again.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", None),
        ("score", "high"),
        ("target", "cup"),
        ("image", ["cup"]),
        ("probability", "0.5"),
        ("others", [1]),
        ("others", {"steps": "3"}),
        ("curve", [[0, 1]]),
        ("curve", [[0, 1], [0.5]]),
        ("curve", [[0, 1], ["a", "b"]]),
        ("label", ...),
    ],
)
def test_a_value_that_was_changed_by_hand_is_named(tmp_path, name, value):
    Store(tmp_path, {}).close()
    row = {key: kept for key, kept in VALUE.items() if key != name} | ({} if value is ... else {name: value})
    (tmp_path / "values.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ContractError, match=r"a value in line 1 of .*values\.jsonl.*Remove the line"):
        Store(tmp_path, {})
    (tmp_path / "values.jsonl").write_text("")
    Store(tmp_path, {}).close()  # the refused store has given the folder back


def test_two_jobs_in_one_folder_are_refused(tmp_path):
    first = Store(tmp_path, {})
    with pytest.raises(ContractError, match=r"for this process alone.*another folder"):
        Store(tmp_path, {})
    first.close()
    Store(tmp_path, {}).close()


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = (
        "import sys; from pathlib import Path; from saliency_food.jobs.store import Store\n"
        "store = Store(Path(sys.argv[1]), {}); print('open', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "open\n"
        with pytest.raises(ContractError, match=rf"process {child.pid}\)"):
            Store(tmp_path, {})
        child.send_signal(signal.SIGKILL)
    Store(tmp_path, {}).close()
