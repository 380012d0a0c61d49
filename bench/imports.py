"""How long `import r1ranker` and `r1ranker --help` take, each in a process of its own.

    python bench/imports.py

One line each: `ours` is the median in seconds with the interpreter's own start taken off the import, `goal` what it
must stay below. There is no other side, so no ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

GOALS = {"import r1ranker": 0.3, "r1ranker --help": 0.6}


def seconds(command: Sequence[str], runs: int) -> float:
    """Median wall time of a command, after one run that fills the caches."""
    times = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    args = parser.parse_args()
    python = seconds([sys.executable, "-c", "pass"], args.runs)
    found = {
        "import r1ranker": seconds([sys.executable, "-c", "import r1ranker"], args.runs) - python,
        "r1ranker --help": seconds([sys.executable, "-m", "r1ranker.cli.app", "--help"], args.runs),
    }
    for name, value in found.items():
        line = {"bench": name, "ratio": None, "ours": round(value, 4), "theirs": None, "pairs": args.runs}
        print(json.dumps(line | {"goal": GOALS[name], "met": value < GOALS[name]}), flush=True)


if __name__ == "__main__":
    main()
