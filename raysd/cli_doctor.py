"""The command `raysd doctor`: what this machine, or the cluster of RAY_ADDRESS, has, and what will not work."""

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from raysd.cli_options import DEFAULT_CACHE, DEFAULT_RESULTS, Cache, ResultsRoot, SomeDataRoot, err, out

if TYPE_CHECKING:
    from raysd.doctor import Report
    from raysd.machine import Finding

COLOURS = {"ok": "green", "warning": "yellow", "will not work": "red", "not checked": "dim"}


def doctor(
    data_root: SomeDataRoot = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    cache: Cache = DEFAULT_CACHE,
    year: Annotated[int | None, typer.Option(help="The DCASE year of the data; else the first that fits.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Say what this machine has (versions, GPUs, data, disks), what will not work, and the fix.

    With RAY_ADDRESS set, that cluster and all its nodes. Exit status 1 where something will not work.
    """
    from raysd.data.years import YEARS
    from raysd.doctor import Ask, examine_here
    from raysd.errors import BadInput, nearest
    from raysd.results.storage import absolute

    if year is not None and year not in YEARS:
        raise BadInput(f"--year {year}: {nearest(str(year), map(str, YEARS))}")
    ask = Ask(absolute(results), cache.resolve(), data_root and data_root.resolve(), year)
    with err.status("examining"):
        if os.environ.get("RAY_ADDRESS"):
            from raysd.scale.doctor import examine_cluster

            report = examine_cluster(ask)
        else:
            report = examine_here(ask)
    if as_json:
        print(json.dumps(as_dict(report), indent=2))
    else:
        out.print(as_table(report))
        out.print(last_line(report), highlight=False)
    if not report.works:
        raise typer.Exit(1)


def as_dict(report: "Report") -> dict:
    """The report as plain JSON values."""
    findings = [{"place": place, **asdict(one)} for place, some in report.findings.items() for one in some]
    return {"about": report.about, "works": report.works, "findings": findings}


def as_table(report: "Report") -> Table:
    """A row a finding; what several nodes found alike stands in one."""
    table = Table(title=report.about, title_justify="left")
    several = len(report.findings) > 1
    for name in ("check", *(["where"] if several else []), "found", "state", "fix"):
        table.add_column(name, overflow="fold")
    for finding, places in _alike(report):
        where = [Text(f"all {len(places)} nodes" if len(places) == len(report.findings) - 1 > 1 else ", ".join(places))]
        state = Text(finding.state, COLOURS[finding.state])
        table.add_row(finding.check, *(where if several else []), Text(finding.found), state, Text(finding.fix))
    return table


def _alike(report: "Report") -> list[tuple["Finding", list[str]]]:
    """Findings with the places that have them, in the order of the checks."""
    places: dict[Finding, list[str]] = {}
    for place, findings in report.findings.items():
        for finding in findings:
            places.setdefault(finding, []).append(place)
    order = list(dict.fromkeys(finding.check for finding in places))
    return sorted(places.items(), key=lambda one: order.index(one[0].check))


def last_line(report: "Report") -> Text:
    """What all of it comes to."""
    count = report.count()
    parts = [f"{number} {word}" for word, number in count.items() if number]
    verdict = "all that was checked works" if report.works else "not all will work"
    return Text(f"{verdict}: {', '.join(parts)}", COLOURS["ok" if report.works else "will not work"])
