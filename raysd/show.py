"""One trial: its recipe, where its numbers come from, how it was trained, what it scored, why attempts at it failed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic import ValidationError
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raysd.detect.metrics import ALL_MACHINES, averaging, headline_metrics
from raysd.errors import BadInput
from raysd.recipe import Recipe
from raysd.results.schema import Record
from raysd.results.store import Results
from raysd.settings import Settings
from raysd.study.plan import duration

ATTEMPT = ("variant", "study", "profile", "seed", "year", "data_fingerprint", "training_key", "recipe", "provenance")
"""What is read of a failed attempt beside how it failed."""


@dataclass(frozen=True)
class ShownTrial:
    """All that the results hold of one trial, but its scores."""

    key: str
    record: Record | None
    """None: it has not finished."""
    failures: tuple[dict[str, Any], ...]
    """The attempts that failed, the last one last."""
    embedded: bool
    """Whether the embeddings of its training are there."""

    def to_rich(self) -> Group:
        """For a terminal or a log."""
        of = vars(self.record) if self.record else self.failures[-1]
        parts: list[Any] = [Text(f"{self.key}: {of['variant']}, seed {of['seed']}", style="bold"), self._facts(of)]
        parts += [Text("\nrecipe", style="bold"), *recipe_lines(of["recipe"])]
        if self.record:
            parts += [*_history(self.record), *_metrics(self.record)]
        parts += [Text("\nprovenance", style="bold"), _grid(_provenance(of["provenance"]))]
        if self.failures:
            parts += self._failed()
        return Group(*parts)

    def _facts(self, of: dict[str, Any]) -> Table:
        attempts = f"{len(self.failures)} failed attempt{'s' * (len(self.failures) > 1)}"
        state = f"failed ({self.failures[-1]['failure_kind']}), {attempts}" if self.failures else ""
        took = ""
        if self.record:
            state = f"done at {self.record.finished:%Y-%m-%d %H:%M} UTC" + (f", after {attempts}" if state else "")
            speed = self.record.clips_per_second
            took = f"{duration(self.record.train_seconds)} of training" + (f", {speed:.1f} clips/s" if speed else "")
            took += f"; {duration(self.record.total_seconds)} in the run that finished it"
        return _grid(
            {
                "study": f"{of['study']}, profile {of['profile'] or 'none'}",
                "data": f"DCASE {of['year']}, fingerprint {of['data_fingerprint']}",
                "state": state,
                "took": took,
                "training": f"{of['training_key']}, its embeddings are {'kept' if self.embedded else 'not there'}",
            }
        )

    def _failed(self) -> Iterator[Text]:
        yield Text("\nfailed attempts", style="bold")
        for attempt in self.failures:
            yield Text(f"{attempt['finished']:%Y-%m-%d %H:%M:%S} UTC  {attempt['failure_kind']}")
        yield Text(f"\n{(self.failures[-1]['traceback'] or 'nothing was said').rstrip()}")


def find_trial(results: Results, beginning: str) -> ShownTrial:
    """The trial, finished or failed, whose key starts so; raises BadInput where there is none, or more than one."""
    done = results.done()
    found = sorted(key for key in done | results.failed() if key.startswith(beginning))
    if len(found) != 1:
        which = f"{len(found)} trials" if found else "no trial, finished or failed,"
        raise BadInput(f"{results}: {which} with a key that starts with '{beginning}'; give the key of one")
    tried = results.failures(["failure_kind", "traceback", "finished", *ATTEMPT], found)
    failures = tried.astype(object).where(tried.notna(), None).to_dict("records")
    record = results.read(found[0]) if found[0] in done else None
    training_key = record.training_key if record else failures[-1]["training_key"]
    embedded = training_key in results.trained()
    return ShownTrial(found[0], record, tuple(sorted(failures, key=lambda row: row["finished"])), embedded)


def recipe_lines(recipe: str) -> list[Text]:
    """A recipe, as a record keeps it, as lines of YAML; what differs from its default says so."""
    try:
        lines = _lines(Recipe.model_validate_json(recipe), Recipe(), 1)
    except ValidationError:
        lines = [Text("  (of another version of raysd: its settings as they were recorded)")]
        return [*lines, *_plain(json.loads(recipe), 1)]
    return list(lines)


def _lines(settings: Settings, default: Settings, depth: int) -> Iterator[Text]:
    """All but its name, which its own line says; `default` is of the same class."""
    plain, indent = settings.model_dump(mode="json"), "  " * depth
    for name in (name for name in type(settings).model_fields if name != "name"):
        value, usual = getattr(settings, name), getattr(default, name)
        if isinstance(value, Settings):
            switched = f"{indent}{name}:" + ("  # default: null" if usual is None else "")
            yield Text(switched, style="bold" if usual is None else "")
            if "name" in type(value).model_fields:
                named, other = (of.model_dump()["name"] if isinstance(of, Settings) else None for of in (value, usual))
                changed = "" if other in (None, named) else f"  # default: {other}"
                yield Text(f"{indent}  name: {named}{changed}", style="bold" if changed else "")
            yield from _lines(value, usual if isinstance(usual, type(value)) else type(value)(), depth + 1)
        elif value == usual:
            yield Text(f"{indent}{name}: {json.dumps(plain[name])}")
        else:
            was = "on" if isinstance(usual, Settings) else json.dumps(default.model_dump(mode="json")[name])
            yield Text(f"{indent}{name}: {json.dumps(plain[name])}  # default: {was}", style="bold")


def _plain(values: dict[str, Any], depth: int) -> Iterator[Text]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield Text(f"{'  ' * depth}{name}:")
            yield from _plain(value, depth + 1)
        else:
            yield Text(f"{'  ' * depth}{name}: {json.dumps(value)}")


def _history(record: Record) -> list[Any]:
    formats = {
        "epoch": "d",
        "loss": ".4f",
        "contrastive": ".4f",
        "classification": ".4f",
        "learning_rate": ".3g",
        "grad_norm": ".3g",
        "clips_per_second": ".1f",
        "seconds": ".2f",
    }
    epochs = pd.DataFrame(record.history).to_dict("records")
    if not epochs:
        return []
    table = _numbers(list(formats))
    for epoch in epochs:
        cells = ("-" if pd.isna(epoch[name]) else format(epoch[name], spec) for name, spec in formats.items())
        table.add_row(*cells)
    return [Text("\nepochs", style="bold"), table]


def _metrics(record: Record) -> list[Any]:
    """The year's means of each machine, in percent: a table a part."""
    rows = [row for row in record.metrics if row["section"] == averaging(record.year)]
    proxies = sorted({row["metric"] for row in rows if row["metric"].startswith("proxy_")})
    names = [*headline_metrics(record.year), *proxies]
    values = {(row["part"], row["machine"], row["metric"]): row["value"] for row in rows if row["metric"] in names}
    shown: list[Any] = []
    for part in sorted({part for part, _, _ in values}):
        machines = sorted({machine for of, machine, _ in values if of == part} - {ALL_MACHINES})
        machines += [ALL_MACHINES] if len(machines) > 1 else []
        table = _numbers(["machine", *(name for name in names if any(of == name for _, _, of in values))])
        for machine in machines:
            cells = [values.get((part, machine, str(column.header))) for column in table.columns[1:]]
            table.add_row(machine, *("-" if cell is None else f"{100 * cell:.2f}" for cell in cells))
        shown += [Text(f"\nmetrics, {part}, percent", style="bold"), table]
    return shown


def _provenance(recorded: str) -> dict[str, str]:
    lines = {}
    for name, value in json.loads(recorded).items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {json.dumps(of) if isinstance(of, dict) else of}" for key, of in value.items())
        elif isinstance(value, list):
            value = " ".join(map(str, value))
        lines[name] = "" if value is None else str(value)
    return lines


def _grid(rows: dict[str, str]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        if value:
            grid.add_row(Text(f"  {name}"), Text(value, overflow="fold"))
    return grid


def _numbers(header: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in header:
        table.add_column(name, justify="left" if name == "machine" else "right")
    return table
