"""The commands about studies that run elsewhere or later: submit, status, logs, stop."""

import os
import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from raysd import completion
from raysd.cli_options import (
    DEFAULT_CACHE,
    DEFAULT_RESULTS,
    Cache,
    Profile,
    ResultsRoot,
    Seeds,
    Set,
    SkipBad,
    SomeDataRoot,
    StudyName,
    Workers,
    err,
    open_session,
    out,
    seed_numbers,
)
from raysd.errors import BadInput

if TYPE_CHECKING:
    from raysd.scale.jobs import JobDetails, JobSubmissionClient

jobs_app = typer.Typer()
Address = Annotated[
    str | None,
    typer.Option(
        envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
        metavar="URL",
        help="The dashboard of the cluster, for instance http://HEAD:8265.",
    ),
]
Job = Annotated[str, typer.Argument(metavar="JOB", help="The name that submit printed.")]


@jobs_app.command()
def submit(
    study: StudyName,
    address: Address = None,
    data_root: Annotated[
        str | None,
        typer.Option("--data-root", help="The data, as the cluster's nodes see it; else their RAYSD_DATA_ROOT."),
    ] = None,
    results: Annotated[
        str | None,
        typer.Option("--results", help="The results root, as all nodes see it, or s3://...; else their RAYSD_RESULTS."),
    ] = None,
    cache: Annotated[
        str | None, typer.Option("--cache", help="Where each node keeps decoded clips; else its RAYSD_CACHE.")
    ] = None,
    set_: Set = None,
    profile: Profile = None,
    seeds: Seeds = None,
    skip_bad: SkipBad = False,
    workers: Workers = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Print what the job prints, and exit as it does.")
    ] = False,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            metavar="NAME[=VALUE]",
            help="An environment variable for the job; repeatable. Nothing else of this environment travels. Who can "
            "see the cluster's jobs can see it.",
        ),
    ] = None,
) -> None:
    """Run a study on a Ray cluster: sends raysd and the study to it, and no data.

    Interrupt it when you like: a job that was submitted goes on.
    """
    from raysd.study.design import load_study
    from raysd.yaml_values import parse_assignments

    loaded = load_study(study, parse_assignments(set_ or []), profile, seed_numbers(seeds))
    options = _words("--data-root", _for_nodes("--data-root", data_root))
    options += _words("--results", _for_nodes("--results", results)) + _words("--cache", _for_nodes("--cache", cache))
    options += [word for change in set_ or [] for word in ("--set", change)]
    options += _words("--profile", profile) + _words("--seeds", seeds) + (["--skip-bad"] if skip_bad else [])
    options += _words("--workers", None if workers is None else str(workers))
    variables = _variables(env or [])

    from raysd.scale import jobs

    client = jobs.connect(address)
    job = jobs.submit(client, loaded, options, variables, results or "")
    for line in (f"submitted: {job}", f"dashboard: {jobs.dashboard(client, job)}", *_next(client, job)):
        err.print(line, highlight=False, soft_wrap=True)
    if follow:
        raise typer.Exit(_followed(client, job))


@jobs_app.command()
def status(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDY | JOB]",
            help="A study, or a job; without it, the cluster's jobs.",
            autocompletion=completion.studies,
        ),
    ] = None,
    address: Address = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    data_root: SomeDataRoot = None,
    set_: Set = None,
    profile: Profile = None,
    seeds: Seeds = None,
    skip_bad: SkipBad = False,
    cache: Cache = DEFAULT_CACHE,
) -> None:
    """Show what the results hold of a study: done, begun, failed and why, missing. Or what became of a job."""
    from raysd.study.places import find_study

    is_job = name is not None and re.match(r"raysd-|raysubmit_", name)
    if name is None and address is None:
        raise BadInput("give a study, or a job, or --address http://HEAD:8265 for the jobs of that cluster")
    if name is None or is_job:
        from raysd.scale import jobs

        client = jobs.connect(address)
        out.print(_job_table(client, jobs.jobs(client)) if name is None else _about(client, jobs.find(client, name)))
        return
    find_study(name)
    from raysd.status import study_status

    session = open_session(name, data_root, results, set_, profile, seeds, skip_bad, cache)
    for found in study_status(session.study, session.results, session.fingerprint):
        out.print(found.to_rich())


@jobs_app.command()
def logs(
    job: Job,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends, and exit as it does.")] = False,
) -> None:
    """Print what a job prints."""
    from raysd.scale import jobs

    client = jobs.connect(address)
    if follow:
        raise typer.Exit(_followed(client, job))
    print(jobs.logs(client, job), end="")


@jobs_app.command()
def stop(job: Job, address: Address = None) -> None:
    """Stop a job and wait until it has ended. What it has done is kept: submitted again, the study goes on."""
    from raysd.scale import jobs

    ended = jobs.stop(jobs.connect(address), job)
    err.print(f"{job}: {ended.status.value.lower()}", highlight=False, soft_wrap=True)


def _followed(client: "JobSubmissionClient", job: str) -> int:
    from raysd.scale import jobs

    try:
        status = jobs.follow(client, job, lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        for line in (f"{job} goes on", *_next(client, job)):
            err.print(line, highlight=False, soft_wrap=True)
        return jobs.INTERRUPTED
    ended = jobs.find(client, job)
    err.print(f"{job}: {ended.status.value.lower()}, exit status {status}", highlight=False, soft_wrap=True)
    if status == 127:
        err.print("the cluster finds no python: start Ray there where it does, as from an activated environment")
    return status


def _next(client: "JobSubmissionClient", job: str) -> list[str]:
    at = f"{job} --address {client.get_address()}"
    return [f"logs: raysd logs {at} --follow", f"status: raysd status {at}", f"stop: raysd stop {at}"]


def _about(client: "JobSubmissionClient", job: "JobDetails") -> Table:
    from raysd.scale.jobs import dashboard, exit_status

    about, ended = job.metadata or {}, exit_status(job)
    rows = {
        "job": job.submission_id,
        "state": job.status.value.lower(),
        "exit status": None if ended is None else str(ended),
        "study": about.get("raysd_study"),
        "command": job.entrypoint,
        "results": about.get("raysd_results"),
        "commit": about.get("raysd_commit"),
        "started": _time(job.start_time),
        "ended": _time(job.end_time),
        "said": (job.message or "").splitlines()[0] if job.message else None,
        "dashboard": dashboard(client, job.submission_id or ""),
    }
    grid = Table.grid(padding=(0, 2))
    for key, value in rows.items():
        if value:
            grid.add_row(Text(key), Text(value, overflow="fold"))
    return grid


def _job_table(client: "JobSubmissionClient", found: "list[JobDetails]") -> Table | str:
    from raysd.scale.jobs import exit_status

    if not found:
        return f"no study was submitted to {client.get_address()}"
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("job", "study", "state", "exit status", "started", "ended"):
        table.add_column(column, overflow="fold")
    for job in found:
        ended, study = exit_status(job), (job.metadata or {})["raysd_study"]
        cells = [job.submission_id, study, job.status.value.lower(), "" if ended is None else str(ended)]
        table.add_row(*(Text(cell or "") for cell in [*cells, _time(job.start_time), _time(job.end_time)]))
    return table


def _time(milliseconds: int | None) -> str | None:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC" if milliseconds else None


def _words(option: str, value: str | None) -> list[str]:
    return [] if value is None else [option, value]


def _for_nodes(option: str, path: str | None) -> str | None:
    """A path on the cluster. There is no folder to which a relative one could refer."""
    if path is not None and not re.match(r"/|\w+://", path):
        raise BadInput(f"{option} {path}: give an absolute path on the cluster's nodes, or a URI such as s3://...")
    return path


def _variables(named: list[str]) -> dict[str, str]:
    """The values of `--env NAME` (as here) and `--env NAME=VALUE`."""
    variables = {}
    for word in named:
        name, given, value = word.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise BadInput(f"--env: '{name}' is no name of an environment variable; expected NAME or NAME=VALUE")
        if not given and name not in os.environ:
            raise BadInput(f"--env {name}: it is not set here; set it, or give --env {name}=VALUE")
        variables[name] = value if given else os.environ[name]
    return variables
