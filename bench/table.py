"""The README's table of the benchmarks in results/bench.jsonl, as Markdown; `table.py README.md` puts it in there."""

import re
import sys
from pathlib import Path
from typing import Any

from run import KEPT, sections

HEADER = "| | ours | reference | ratio | goal | met |\n| --- | ---: | ---: | ---: | --- | --- |\n"
MARKS = ("<!-- made by bench/table.py -->\n\n", "\n<!-- until here -->")


def markdown(text: str) -> str:
    """A table for each day and kind of machine of a file of benchmarks, under a line that says which."""
    made = []
    for about, lines in sections(text):
        rows = "".join(_row(line) for line in lines if line.get("met") is not None)  # the others only tell
        made.append(f"{about['date']}, {_machine(about['machine'])}:\n\n{HEADER}{rows}")
    return "\n".join(made)


def _machine(about: dict[str, Any]) -> str:
    parts = [about["processor"], f"{about['cores']} cores", f"{about['memory_gb']} GB of memory", about["gpu"]]
    threads = f"{about['threads']} threads"
    return ", ".join(part for part in parts if part) + f" (torch {about['torch']}, {threads}, ray {about['ray']})"


def _row(line: dict[str, Any]) -> str:
    unit = line["unit"]
    cells = [
        line["name"],
        f"{_number(line['ours'])} {unit}",
        "" if line["reference"] is None else f"{_number(line['reference'])} {unit}",
        "" if line["ratio"] is None else _number(line["ratio"]),
        line["goal"],
        "yes" if line["met"] else "**no**",
    ]
    return f"| {' | '.join(cells)} |\n"


def _number(value: float) -> str:
    """Three digits that say something, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> None:
    made = markdown(KEPT.read_text(encoding="utf-8"))
    if len(sys.argv) < 2:
        print(made, end="")
        return
    page, (begin, end) = Path(sys.argv[1]), MARKS
    before = page.read_text(encoding="utf-8")
    page.write_text(
        re.sub(f"(?s)(?<={re.escape(begin)}).*?(?={re.escape(end)})", lambda _: made, before), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
