"""Runs the benchmarks, all or those named, and keeps their lines in results/bench.jsonl: `run.py [bench_step ...]`.

A line that says when and on what kind of machine they ran stands before those that were measured so. A benchmark that
is run again takes the place of its lines of the same kind of machine. `bench/table.py` makes the README's table of it.
"""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from raysd.results.provenance import provenance

HERE = Path(__file__).resolve().parent
KEPT = HERE.parent / "results" / "bench.jsonl"

Section = tuple[dict[str, Any], list[dict[str, Any]]]
"""A day on a kind of machine, and what was measured then: name, unit, ours, reference, ratio, goal, met, bench."""


def sections(text: str) -> list[Section]:
    """What a file of benchmarks holds."""
    found: list[Section] = []
    for line in map(json.loads, text.splitlines()):
        if "machine" in line:
            found.append((line, []))
        else:
            found[-1][1].append(line)
    return found


def here() -> dict[str, Any]:
    """Today, and this kind of machine; nothing that tells which one it is."""
    known = provenance()
    about = {
        "processor": known["cpu"],
        "cores": known["cpu_count"],
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "python": known["python"],
        "torch": known["packages"]["torch"],
        "ray": known["packages"]["ray"],
    }
    return {"date": datetime.now(UTC).date().isoformat(), "machine": about}


def measured(bench: str) -> tuple[list[dict[str, Any]], bool]:
    """The lines of a benchmark, shown as they come, and whether it ended well."""
    lines = []
    with subprocess.Popen([sys.executable, HERE / f"{bench}.py"], stdout=subprocess.PIPE, text=True) as process:
        for text in process.stdout or ():
            print(text, end="", flush=True)
            if text.startswith("{"):
                lines.append(json.loads(text) | {"bench": bench})
    return lines, process.returncode == 0


def main() -> None:
    names, failed, now = sorted(path.stem for path in HERE.glob("bench_*.py")), [], here()
    for bench in sys.argv[1:] or names:
        lines, well = measured(bench)
        if not well:
            failed.append(bench)
            continue
        kept = sections(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else []
        for about, own in kept:
            if about["machine"] == now["machine"]:
                own[:] = [line for line in own if line["bench"] != bench]
        if now not in [about for about, _ in kept]:
            kept.append((now, []))
        for about, own in kept:
            if about == now:
                own += lines
                own.sort(key=lambda line: names.index(line["bench"]) if line["bench"] in names else -1)
        text = "".join(f"{json.dumps(line)}\n" for about, own in kept if own for line in (about, *own))
        KEPT.write_text(text, encoding="utf-8")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
