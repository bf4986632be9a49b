"""The commands `raysd data ...`: data sets, downloaded, verified and synthetic."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raysd.cli_options import err, out
from raysd.errors import BadInput, nearest

if TYPE_CHECKING:
    from raysd.data.download import Plan

data_app = typer.Typer(help="Data sets.", no_args_is_help=True)


def _data_sets() -> list[str]:
    from raysd.data.records import RECORDS

    return [f"dcase{year}" for year in RECORDS]


@data_app.command()
def download(
    data_set: Annotated[
        str,
        typer.Argument(metavar="DATASET", help="dcase2020 to dcase2024.", autocompletion=_data_sets),
    ],
    root: Annotated[Path, typer.Option("--to", help="The data root: a folder for this data set alone.")],
    machines: Annotated[str, typer.Option(help="Only these, for instance fan,valve.")] = "",
    parts: Annotated[
        str, typer.Option(help="dev; additional: training data of eval; eval: its test data and truth lists.")
    ] = "dev,additional,eval",
    jobs: Annotated[int, typer.Option(min=1, max=16, help="Files downloaded at a time.")] = 4,
) -> None:
    """Download a DCASE data set from Zenodo, in the official layout, with the truth lists of its evaluation data.

    Interrupt it when you like: the same command goes on where it was. What is there and complete is left as it is.
    """
    from raysd.data.download import carry_out, plan_download
    from raysd.transfers import TransferProgress

    found = re.fullmatch(r"dcase([0-9]{4})", data_set)
    if not found or data_set not in _data_sets():
        raise BadInput(f"data set {data_set}: {nearest(data_set, _data_sets())}")
    try:
        with err.status("asking for sizes"):
            plan = plan_download(root, int(found[1]), _words(parts), _words(machines), jobs)
        _tell(plan, jobs)
        with TransferProgress(err, plan.to_download_bytes) as progress:
            failures = carry_out(plan, progress, jobs)
    except KeyboardInterrupt:
        _say("interrupted: the same command goes on where it was")
        raise typer.Exit(130) from None
    except OSError as error:
        raise BadInput(f"{error.filename or root}: {error.strerror or error}") from None
    for failure in failures:
        _say(failure)
    if failures:
        raise BadInput(f"{len(failures)} of {len(plan.wanted)} files were not brought; the same command tries again")
    if not plan.foreign:
        _say(f"{root}: all of it is there")


@data_app.command()
def verify(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="The data root.")],
    year: Annotated[
        int | None, typer.Option(help="The DCASE year; without it, names and machines tell it, if they can.")
    ] = None,
    machines: Annotated[str, typer.Option(help="Only these, for instance fan,valve; they must be there.")] = "",
    parts: Annotated[
        str, typer.Option(help="What must be there: dev, additional, eval; without it, what is there must be whole.")
    ] = "",
    deep: Annotated[bool, typer.Option("--deep", help="Decode all samples; without it, headers are read.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, with every file, for scripts.")] = False,
) -> None:
    """Compare a data set with what its year has published: numbers of clips, missing archives, bad and doubled files.

    Exits with 1 where something is wrong. Machines that the year lacks are counted, and compared with themselves.
    """
    from rich.progress import Progress
    from rich.text import Text

    from raysd.data.verify import verify as compare
    from raysd.print_verify import render

    with Progress(console=err, transient=True, disable=not err.is_terminal) as shown:
        task = shown.add_task("reading clips", total=None)

        def advance(done: int, total: int) -> None:
            shown.update(task, completed=done, total=total)

        report = compare(root, year, _words(machines), _words(parts), deep, advance)
    if as_json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        for piece in render(report):
            out.print(piece, soft_wrap=isinstance(piece, Text), highlight=False)
    if not report.ok:
        raise typer.Exit(1)


@data_app.command()
def synth(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.")],
    year: Annotated[int, typer.Option(help="The layout: 2020, or 2021 to 2024 (with domains).")] = 2020,
    machines: Annotated[int, typer.Option(help="Machine types.")] = 2,
    sections: Annotated[
        int | None, typer.Option(help="Sections of each machine; without it two, or one from 2023 on.")
    ] = None,
    train_clips: Annotated[int, typer.Option(help="Training clips of a section.")] = 30,
    test_clips: Annotated[int, typer.Option(help="Test clips of a section, half of them anomalous.")] = 24,
    clip_seconds: Annotated[float, typer.Option(help="Length of a clip.")] = 2.0,
    difficulty: Annotated[float, typer.Option(help="0 easy; larger is harder.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
) -> None:
    """Write a small synthetic corpus in the official layout, with faults of several physical kinds."""
    from raysd.data.synthetic import Synthetic, synthesise
    from raysd.settings import parse

    asked = {
        "year": year,
        "machines": machines,
        "sections": sections if sections is not None else 2 if year < 2023 else 1,
        "train_clips": train_clips,
        "test_clips": test_clips,
        "clip_seconds": clip_seconds,
        "difficulty": difficulty,
        "seed": seed,
    }
    synthesise(folder, parse(Synthetic, asked, "raysd data synth"))
    _say(f"{folder}: {len(list(folder.rglob('*.wav')))} clips")


def _tell(plan: "Plan", jobs: int) -> None:
    """What will be downloaded, before it begins."""
    from rich.filesize import decimal

    archives = [one for one in plan.wanted if one.place.remote.machine]
    for one in archives:
        size = "size not known" if one.size_bytes is None else decimal(one.size_bytes)
        here = f", {decimal(one.so_far_bytes)} of it here" if one.so_far_bytes else ""
        compared = "" if one.checksum else "; no checksum is known: the one found is kept"
        _say(f"{one.name}: {size}{here}{compared}")
    for place in plan.foreign:
        folders = " and ".join(str(folder) for folder in place.folders())
        _say(f"{place.remote.name}: left out, as {folders} is there and not from here; `raysd data verify` examines it")
    lists = len(plan.wanted) - len(archives)
    if plan.wanted:
        _say(
            f"{plan.root}: {len(archives)} archives and {lists} truth lists to download, "
            f"{decimal(plan.to_download_bytes)}, unpacked about {decimal(plan.to_unpack_bytes)}; "
            f"{len(plan.complete)} files are there; about {decimal(plan.needed_bytes(jobs))} of disk are needed"
        )
        records = sorted({one.place.remote.record for one in plan.wanted if one.place.remote.record})
        _say(f"licences and terms: {', '.join(f'https://zenodo.org/records/{record}' for record in records)}")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _say(line: str) -> None:
    err.print(line, highlight=False, soft_wrap=True, markup=False)
