"""The commands `raysd weights list|fetch|verify`: published checkpoints, and those of own pre-training."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from raysd.cli_options import DEFAULT_CACHE, DEFAULT_RESULTS, Cache, ResultsRoot, err, out
from raysd.completion import weights, weights_or_files
from raysd.errors import BadInput

if TYPE_CHECKING:
    from raysd.data.transfer import Tell

weights_app = typer.Typer(help="Weights of pre-trained encoders.", no_args_is_help=True)


@weights_app.command("list")
def list_(
    results: ResultsRoot = DEFAULT_RESULTS,
    cache: Cache = DEFAULT_CACHE,
    as_json: Annotated[
        bool, typer.Option("--json", help="All that is known of each: address, checksum, licence, expected input.")
    ] = False,
) -> None:
    """Show the published checkpoints that raysd knows, which of them are here, and those of own pre-training."""
    from raysd.model.published import PUBLISHED
    from raysd.results.storage import absolute
    from raysd.results.store import Results
    from raysd.results.weights import own_weights
    from raysd.weights import FOLDER, known_here, weights_folder, where

    cache, root = cache.resolve(), Results(absolute(results))
    own, here = own_weights(root), known_here(cache)
    if as_json:
        paths = {name: str(where(PUBLISHED[name], cache)) for name in here}
        published = [
            asdict(row) | {"path": paths.get(name), "verified": here.get(name, False)}
            for name, row in PUBLISHED.items()
        ]
        print(json.dumps({"published": published, "own": own}, indent=2))
        return
    table = _table("name", "encoder", "figures of its authors", "size", "licence", "here")
    for name, row in PUBLISHED.items():
        size = decimal(row.num_bytes) if row.num_bytes else f"about {decimal(4 * row.num_parameters)}"
        state = {True: "verified", False: "not yet verified", None: "absent"}[here.get(name)]
        table.add_row(*map(Text, [name, _settings(row.encoder), row.figures, size, row.licence, state]))
    out.print(table)
    _print(f"kept in {weights_folder(cache)}; a folder that {FOLDER} names comes first")
    if own:
        table = _table("key", "own pre-training", "encoder", "licence")
        for about in own:
            encoder = _settings(about["encoder"]) if about.get("encoder") else "not known"
            table.add_row(*map(Text, [about["key"], str(about["name"]), encoder, str(about["licence"])]))
        out.print(table)
    _print(f"own pre-training in {root}: {len(own)} checkpoint{'s' * (len(own) != 1)}")


@weights_app.command()
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Names in `raysd weights list`.", autocompletion=weights),
    ],
    cache: Cache = DEFAULT_CACHE,
) -> None:
    """Download published weights that are not here, or go on with it where it was broken off; print where they are."""
    from raysd.weights import find, weights_file

    for published in [find(name) for name in names]:
        with _download_bar(published.name) as progress:
            path = weights_file(published.name, cache.resolve(), progress, announce=_say)
        print(path)


@weights_app.command()
def verify(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME|PATH]...",
            help="Names in `raysd weights list`, or files. Without any: all published weights that are here.",
            autocompletion=weights_or_files,
        ),
    ] = None,
    cache: Cache = DEFAULT_CACHE,
) -> None:
    """Check files of weights: size and SHA-256, that they hold tensors and no code, and which encoder they fit.

    Exit status 1 where one is not what it should be.
    """
    from raysd.weights import examine, known_here

    asked = what or list(known_here(cache.resolve()))
    if not asked:
        err.print("no published weights are here; raysd weights fetch NAME downloads them", highlight=False)
    problems = 0
    for one in asked:
        try:
            lines = examine(one, cache.resolve(), _say)
        except BadInput as error:
            problems += 1
            err.print(str(error), style="red", highlight=False, soft_wrap=True, markup=False)
        else:
            _print("\n  ".join(lines))
    if problems:
        raise typer.Exit(1)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, justify="right" if name == "size" else "left", overflow="fold")
    return table


def _settings(settings: Mapping[str, Any]) -> str:
    """`mobilenet_v3, width 0.4`: its name, then the plain ones."""
    plain = [f"{key} {value}" for key, value in settings.items() if key != "name" and isinstance(value, int | float)]
    return ", ".join([str(settings["name"]), *plain])


def _print(text: str) -> None:
    out.print(text, highlight=False, soft_wrap=True, markup=False)


def _say(line: str) -> None:
    err.print(line, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def _download_bar(title: str) -> "Iterator[Tell]":
    """What a transfer tells, as a bar that appears with its first piece, and only on a terminal."""
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(title, total=None, visible=False)

        def tell(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield tell
