"""The commands about all that a results root holds: studies, show, compare, gc, compact."""

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from raysd.cli_options import DEFAULT_RESULTS, Profile, ResultsRoot, Set, TrialKey, err, out
from raysd.errors import BadInput

if TYPE_CHECKING:
    from raysd.results.cleanup import Cleanup, Usage
    from raysd.results.store import Results

results_app = typer.Typer()
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@results_app.command()
def studies(
    results: ResultsRoot = DEFAULT_RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show what a results root holds: every study with its trials done, begun and failed, and every search."""
    from raysd.overview import overview

    found = overview(_open(results))
    if as_json:
        print(found.to_json())
    else:
        out.print(found.to_rich())


@results_app.command()
def show(trial: TrialKey, results: ResultsRoot = DEFAULT_RESULTS) -> None:
    """Show one trial: recipe, provenance, epochs, metrics, and how attempts at it failed."""
    from raysd.show import find_trial

    out.print(find_trial(_open(results), trial).to_rich())


@results_app.command()
def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help="A study's file or name; STUDY@COMMIT: its trials at a commit.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The same, to be compared with A.")],
    results: ResultsRoot = DEFAULT_RESULTS,
    results_b: Annotated[str | None, typer.Option(help="Results root of B; without it, that of A.")] = None,
    set_: Set = None,
    profile: Profile = None,
    metric: Annotated[str | None, typer.Option(help="What is compared; without it, the metric of A.")] = None,
) -> None:
    """Compare two studies, or one at two revisions of the code: the same trials side by side, the others apart.

    For instance: raysd compare augmentation@1a2b3c augmentation@4d5e6f
    """
    from raysd.compare import compare as compared
    from raysd.yaml_values import parse_assignments

    changes = parse_assignments(set_ or [])
    out.print(compared(a, b, _open(results), _open(results_b or results), changes, profile, metric).to_rich())


@results_app.command()
def gc(
    results: ResultsRoot = DEFAULT_RESULTS,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            help="For instance 7d or 12h. Checkpoints of unfinished trainings so old go too; younger embeddings stay.",
        ),
    ] = None,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Embeddings too; another scorer would have to train again.")
    ] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete it; without it, nothing is changed.")] = False,
) -> None:
    """Show what the results can do without, and delete it if asked: checkpoints and embeddings, never scores.

    Checkpoints of finished trainings, and what killed writers left. Nothing of a training that is in use.

    Embeddings only of trainings with a finished trial, and none still to come of any study's last launch.
    """
    from raysd.results import cleanup

    age, root = _age(older_than), _open(results)
    before, found = cleanup.usage(root), cleanup.find_dispensable(root, age, embeddings)
    _print_cleanup(found)
    if not delete:
        if any(amount.files for amount in before.values()):
            out.print(_usage_table({"now": before}))
        if found.found:
            err.print(f"nothing was deleted; with --delete {_amount(len(found.found), found.num_bytes)} would be")
        return
    left = cleanup.delete(root, found)
    out.print(_usage_table({"before": before, "after": cleanup.usage(root)}))
    gone = [one for one in found.found if one not in left]
    err.print(f"deleted: {_amount(len(gone), sum(one.num_bytes for one in gone))}", highlight=False)
    for one in left:
        err.print(f"not deleted, in use or not ours to delete: {one.name}", highlight=False, soft_wrap=True)


@results_app.command()
def compact(results: ResultsRoot = DEFAULT_RESULTS) -> None:
    """Pack the files of finished trials into few, for quick reading; others may write and read meanwhile."""
    from raysd.progress import bar
    from raysd.study.plan import size

    root = _open(results)
    with bar(err, "packing trials") as progress:
        done = root.compact(progress)
    counts = f"{done.files_before} files, {size(done.bytes_before)} -> {done.files_after}, {size(done.bytes_after)}"
    err.print(f"{root}: {done.trials} trials: {counts}", highlight=False, soft_wrap=True)


def _open(root: str) -> "Results":
    from raysd.results.storage import absolute
    from raysd.results.store import Results

    return Results(absolute(root))


def _age(text: str | None) -> timedelta | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)([mhdw])", text)
    if found is None:
        raise BadInput(f"--older-than {text}: expected a number with m, h, d or w behind it, for instance 7d or 12h")
    return int(found[1]) * _UNITS[found[2]]


def _print_cleanup(cleanup: "Cleanup") -> None:
    from raysd.study.plan import size

    if cleanup.found:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("may go", "size", "last change (UTC)", "why"):
            table.add_column(name, justify="right" if name == "size" else "left", overflow="fold")
        for one in cleanup.found:
            if one.kind != "left-over":
                table.add_row(*map(Text, [one.name, size(one.num_bytes), f"{one.modified:%Y-%m-%d %H:%M}", one.why]))
        left_overs = [one for one in cleanup.found if one.kind == "left-over"]
        for why in dict.fromkeys(one.why for one in left_overs):  # small, and there may be hundreds
            own = [one for one in left_overs if one.why == why]
            last = f"{max(one.modified for one in own):%Y-%m-%d %H:%M}"
            names = f"{own[0].name}" + (f" and {len(own) - 1} like it" if len(own) > 1 else "")
            table.add_row(*map(Text, [names, size(sum(one.num_bytes for one in own)), last, why]))
        out.print(table)
    else:
        out.print("nothing to delete by these rules")
    for why, kept in cleanup.kept.items():
        out.print(f"kept: {why}: {_amount(kept.files, kept.num_bytes)}", highlight=False)


def _usage_table(usages: "dict[str, dict[str, Usage]]") -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for when in usages:
        table.add_column(when, justify="right")
    for kind in next(iter(usages.values())):
        amounts = [usage[kind] for usage in usages.values()]
        if any(amount.files for amount in amounts):
            table.add_row(kind, *(_amount(amount.files, amount.num_bytes) for amount in amounts))
    return table


def _amount(files: int, num_bytes: int) -> str:
    from raysd.study.plan import size

    return f"{files} file{'s' * (files != 1)}, {size(num_bytes)}"
