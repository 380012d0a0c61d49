"""Run the bench scripts one after another and write bench/RESULTS.md from the JSON lines that they print.

    python bench/run_all.py [--only trl_update] [--trl-python .bench-venv/bin/python]

`bench/results.jsonl` keeps the last line of every measurement, with its date, machine and versions: with `--only` the
rows of the other scripts stay. A script whose environment is missing is skipped, and one that fails is named; the
others go on.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from r1ranker.cli.facts import machine, versions
from r1ranker.files import write_atomic

HERE = Path(__file__).parent
RUNS: tuple[tuple[str, ...], ...] = (
    ("imports.py",),
    ("products.py",),
    ("products.py", "--dtype", "bfloat16"),
    ("trl_update.py",),
    ("trl_step.py",),
    ("roofline.py",),
    ("append_training.py",),
    ("elimination.py", "--sizes", "20"),
    ("elimination.py", "--alone", "--pairs", "12"),
    ("elimination.py", "--growth"),
    ("llamacpp.py", "--ask", "scored"),
    ("llamacpp.py", "--ask", "constrained"),
    ("llamacpp.py", "--ask", "thinking"),
    ("llamacpp.py", "--ask", "thinking", "--type", "q4_0"),
    ("elimination.py", "--sizes", "100", "--kinds", "off", "--batch", "1"),
    ("schedules.py", "--model", "iranker-135m", "--limit", "24"),
)
SHOWN = ("bench", "ratio", "ours", "theirs", "pairs", "rows")
"""Keys with a place of their own; what else a line says is listed under "more"."""


def missing(script: str, trl_python: Path) -> str:
    """What a script's environment lacks, and what brings it; an empty text if it can run."""
    if not (HERE / script).exists():
        return "there is no such script"
    if script.startswith("trl_") and not trl_python.exists():
        return f"there is no {trl_python}: make bench-setup"
    if script == "llamacpp.py" and importlib.util.find_spec("xllamacpp") is None:
        return "xllamacpp is not installed: pip install 'r1ranker[llamacpp]'"
    return ""


def run(command: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A script's JSON lines, while it runs; its output is passed on. Raises CalledProcessError if it fails."""
    cores = str(os.cpu_count() or 1)
    environment = {"OMP_NUM_THREADS": cores, **os.environ}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith('{"bench"'):
                yield json.loads(line)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def number(value: Any) -> str:
    """A value for a table's cell."""
    if isinstance(value, list | tuple):
        return ", ".join(map(number, value))
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown lines."""
    cells = [[number(row.get(key)) for key in keys] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (keys, ["---"] * len(keys), *cells)]


def render(records: Sequence[Mapping[str, Any]]) -> str:
    """RESULTS.md: a table of comparisons, then those measurements that are tables themselves."""
    lines = ["# Measured", "", "Written by `bench/run_all.py` from `results.jsonl`; each row is one script's line.", ""]
    lines += ["Seconds are medians of pairs timed in turn; the ratio is theirs to ours.", ""]
    compared = [r for r in records if "rows" not in r["line"]]
    rows = []
    for record in compared:
        line = record["line"]
        more = ", ".join(f"{key} {number(value)}" for key, value in line.items() if key not in SHOWN)
        rows.append({**line, "date": record["date"], "more": more})
    lines += table(("bench", "ratio", "ours", "theirs", "pairs", "more", "date"), rows)
    for record in records:
        line = record["line"]
        if "rows" in line:
            facts = ", ".join(f"{key} {number(value)}" for key, value in line.items() if key not in SHOWN)
            lines += ["", f"## {line['bench']} ({facts}; {record['date']})", ""]
            lines += table(list(line["rows"][0]) if line["rows"] else [], line["rows"])
    lines += ["", "## Where", ""]
    for where in sorted({json.dumps([r["machine"], r["versions"]]) for r in records}):
        described = [", ".join(f"{key} {number(value)}" for key, value in part.items()) for part in json.loads(where)]
        lines.append(f"- {'; '.join(described)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked for and write the results after each script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="a script's name without .py; repeat it for more")
    parser.add_argument("--trl-python", type=Path, default=Path(".bench-venv/bin/python"))
    args = parser.parse_args()
    names = {name.removesuffix(".py") for name, *_ in RUNS}
    if unknown := set(args.only or ()) - names:
        raise SystemExit(f"there is no bench '{min(unknown)}'; there are {', '.join(sorted(names))}")
    kept = HERE / "results.jsonl"
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    records = {record["line"]["bench"]: record for record in map(json.loads, lines)}
    facts = {"date": date.today().isoformat(), "machine": machine(), "versions": versions()}
    failed = []
    for script, *options in RUNS:
        if args.only and script.removesuffix(".py") not in args.only:
            continue
        print(f"\n# {script} {' '.join(options)}".rstrip(), flush=True)
        if lack := missing(script, args.trl_python):
            print(f"skipped: {lack}")
            continue
        if script.startswith("trl_"):
            options += ["--trl-python", str(args.trl_python)]
        try:
            for line in run([sys.executable, str(HERE / script), *options]):
                records[line["bench"]] = {"line": line, **facts}
        except subprocess.CalledProcessError as error:
            failed.append(f"{script} ended with {error.returncode}")
        write_atomic(kept, "".join(json.dumps(record) + "\n" for record in records.values()))
        write_atomic(HERE / "RESULTS.md", render(list(records.values())))
    if failed:
        raise SystemExit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
