"""What is in a data root, for a terminal: a table of each part, then what is wrong and what is worth knowing."""

from collections.abc import Callable, Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from raysd.data.tally import Section
from raysd.data.verify import Report
from raysd.data.years import YEARS, Domain, Label

MOST_FILES = 200
"""Files that are listed of one finding."""
_TITLES = {"dev": "development data", "eval": "additional training data and evaluation test data"}
_COLOURS = {"ok": "green", "counted": "", "no test": "yellow", "no train": "yellow"}

_Column = tuple[str, Callable[[Section], int]]


def render(report: Report) -> Iterator[Table | Text]:
    """Tables, then lines, which are to be printed without being folded."""
    for part, title in _TITLES.items():
        sections = [section for section in report.sections if section.part == part]
        if sections:
            yield _table(f"DCASE {report.year}, {part}: {title}", sections, YEARS[report.year].domains)
    for finding in report.findings:
        yield Text.assemble(("wrong: ", "red") if finding.problem else "note: ", finding.text)
        for path, detail in finding.files[:MOST_FILES]:
            yield Text(f"    {path}: {detail}")
        if len(finding.files) > MOST_FILES:
            yield Text(f"    and {len(finding.files) - MOST_FILES:,} more, which --json lists")
    clips = sum(sum(section.train.values()) + sum(section.test.values()) for section in report.sections)
    wrong = sum(finding.problem for finding in report.findings)
    end = "all is as it should be" if report.ok else f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong"
    yield Text(f"{report.root}: {clips:,} clips; {end}", style="green" if report.ok else "red")
    if any(finding.kind in ("missing", "short", "unreadable") and finding.problem for finding in report.findings):
        yield Text(f"raysd data download dcase{report.year} --to {report.root} brings published clips")


def _table(title: str, sections: list[Section], domains: bool) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("machine", no_wrap=True)
    table.add_column("section", no_wrap=True)
    columns = [
        (name, of)
        for name, of in _columns(("source", "target") if domains else (None,))
        if of is not _unlabelled or any(of(section) for section in sections)
    ]
    for name, _ in columns:
        table.add_column(name, justify="right")
    table.add_column("state", no_wrap=True)
    for section in sections:
        cells = [f"{of(section):,}" if of(section) else "-" for _, of in columns]
        state = Text(section.state, style=_COLOURS.get(section.state, "red"))
        table.add_row(*map(Text, [section.machine, section.name, *cells]), state)
    return table


def _columns(domains: tuple[Domain | None, ...]) -> Iterator[_Column]:
    """Headings, and the number of clips below them."""
    labels: dict[Label, str] = {0: "normal", 1: "anomaly"}
    for domain in domains:
        yield _heading("train", domain), lambda section, own=domain: section.train.get(own, 0)
    for domain in domains:
        for label, word in labels.items():
            yield _heading("test", domain, word), lambda section, kind=(domain, label): section.test.get(kind, 0)
    yield _heading("test", "no", "label"), _unlabelled


def _heading(*words: str | None) -> str:
    return "\n".join(word for word in words if word)


def _unlabelled(section: Section) -> int:
    return sum(clips for (_, label), clips in section.test.items() if label is None)
