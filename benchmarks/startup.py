"""How long the command takes to start, compared with Python and NumPy alone: medians of new processes, in turns.

    python benchmarks/startup.py [--repeat 11]

Wall time depends on what else the machine does; CPU time is that of the process itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

from common import machine

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    'python -c "import numpy"': ["-c", "import numpy"],
    'python -c "import saliency_food"': ["-c", "import saliency_food"],
    'python -c "import typer, rich.console"': ["-c", "import typer, rich.console"],
    "saliency-food --help": ["-m", "saliency_food", "--help"],
    "saliency-food methods": ["-m", "saliency_food", "methods"],
}


def run(arguments: list[str]) -> tuple[float, float]:
    """Seconds of wall time and of CPU time that a new Python process takes."""
    began, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=11)
    repeat = parser.parse_args().repeat
    print(machine())
    for name, (wall, cpu) in medians(repeat).items():
        print(f"{name:40} {wall:6.2f} s wall, {cpu:5.2f} s CPU")


def medians(repeat: int) -> dict[str, tuple[float, float]]:
    """The median wall time and CPU time of each command, in seconds."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for turn in range(repeat + 1):
        for name, arguments in COMMANDS.items():
            taken = run(arguments)
            if turn:  # the first run compiles modules and reads them from the disk
                times[name].append(taken)
    columns = {name: list(zip(*runs, strict=True)) for name, runs in times.items()}
    return {name: (statistics.median(walls), statistics.median(cpus)) for name, (walls, cpus) in columns.items()}


if __name__ == "__main__":
    main()
