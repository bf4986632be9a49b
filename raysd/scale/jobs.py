"""Studies as jobs of a Ray cluster: submitted, followed and stopped through the Ray Jobs of its dashboard.

A cluster may want a token. It is asked first, and only one that does is sent it.
"""

import asyncio
import logging
import os
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from raysd.errors import BadInput
from raysd.results.provenance import code
from raysd.results.storage import redacted
from raysd.scale.ship import staged
from raysd.study.design import LoadedStudy

ANSWERS_WITHIN_SECONDS = (5, 15)
"""To connect, and to answer, before a cluster counts as unreachable."""
READY_WITHIN_SECONDS = 60
"""A cluster's dashboard answers some seconds before any of its nodes takes jobs."""
STOPS_WITHIN_SECONDS = 120
INTERRUPTED = 130
"""The exit status of a job that was stopped, as of a command that was interrupted."""
_RECONNECTIONS = 10
_EXAMPLE = "for instance --address http://HEAD:8265"

for _noisy in ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
    logging.getLogger(_noisy).setLevel(logging.ERROR)


def connect(address: str | None) -> JobSubmissionClient:
    """The jobs of the cluster whose dashboard is at `address`.

    Raises BadInput within seconds where nothing answers there, something else does, or it wants a token: that of
    RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token is used, as by Ray itself.
    """
    if address is None or not re.fullmatch(r"https?://[^/\s]+/*", address):
        given = f"{address}: expected" if address else "no cluster given: it takes"
        raise BadInput(f"--address: {given} the address of the cluster's dashboard, {_EXAMPLE}")
    address = address.rstrip("/")
    headers, status = {}, _asked(address, {})
    if status in (401, 403):
        token, where = _token()
        if not token:
            raise BadInput(
                f"{address}: the cluster wants a token; `ray get-auth-token` prints it on the head node: set "
                "RAY_AUTH_TOKEN to it, or keep it in ~/.ray/auth_token"
            )
        headers = {"Authorization": f"Bearer {token}"}
        status = _asked(address, headers)
        if status in (401, 403):
            raise BadInput(
                f"{address}: the cluster refuses the token of {where}; `ray get-auth-token` prints the right one on "
                "the head node"
            )
    if status != 200:
        raise BadInput(f"{address}: no Ray dashboard answers there (HTTP {status}); {_EXAMPLE}")
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # whose value, and RAY_ADDRESS's, the client prefers to its argument
    with _plain_errors(address):
        return JobSubmissionClient(address, headers=headers)


def submit(
    client: JobSubmissionClient,
    study: LoadedStudy,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    results: str = "",
) -> str:
    """Sends the study to the cluster to be run there with `options` of `raysd run`; gives the name of the job.

    Of this process's environment nothing travels: `env` is all that the job gets. `results` is kept with the job.
    """
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    job = f"raysd-{re.sub(r'[^A-Za-z0-9_-]+', '-', study.name)[:40]}-{stamp}"
    about = {"study": study.name, "results": redacted(results), "commit": code()["commit"] or "", "raysd": _version()}
    with staged(study) as (folder, name), _plain_errors(client.get_address()):
        end = time.monotonic() + READY_WITHIN_SECONDS
        while True:
            try:
                return client.submit_job(
                    entrypoint=shlex.join(["python", "-m", "raysd", "run", name, *options]),
                    submission_id=job,
                    runtime_env={"working_dir": str(folder), "env_vars": dict(env or {})},
                    metadata={f"raysd_{key}": value for key, value in about.items()},
                )
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() > end:
                    raise
            time.sleep(1)


def find(client: JobSubmissionClient, job: str) -> JobDetails:
    """What the cluster knows of a job; BadInput where there is none of that name."""
    with _plain_errors(client.get_address(), job):
        return client.get_job_info(job)


def jobs(client: JobSubmissionClient) -> list[JobDetails]:
    """The jobs that run or ran a study, the latest last."""
    with _plain_errors(client.get_address()):
        found = [job for job in client.list_jobs() if (job.metadata or {}).get("raysd_study")]
    return sorted(found, key=lambda job: job.start_time or 0)


def logs(client: JobSubmissionClient, job: str) -> str:
    """What the job has printed so far."""
    with _plain_errors(client.get_address(), job):
        return client.get_job_logs(job)


def follow(client: JobSubmissionClient, job: str, write: Callable[[str], object]) -> int:
    """Gives `write` what the job prints until it has ended, from its first line on; gives its exit status."""
    find(client, job)
    asyncio.run(_tail(client, job, write))
    while not (ended := find(client, job)).status.is_terminal():
        time.sleep(0.5)
    return exit_status(ended) or 0


def exit_status(job: JobDetails) -> int | None:
    """That of the job's command, or of what became of it; None while it has not ended."""
    match job.status:
        case JobStatus.SUCCEEDED:
            return 0
        case JobStatus.STOPPED:
            return INTERRUPTED
        case JobStatus.FAILED:  # one that was killed, or never began, has no status, or a negative one
            return job.driver_exit_code if (job.driver_exit_code or 0) > 0 else 1
    return None


def stop(client: JobSubmissionClient, job: str) -> JobDetails:
    """Stops a job, waits until it has ended, and gives what the cluster says of it then."""
    with _plain_errors(client.get_address(), job):
        client.stop_job(job)
    end = time.monotonic() + STOPS_WITHIN_SECONDS
    while not (found := find(client, job)).status.is_terminal():
        if time.monotonic() > end:
            raise BadInput(f"job {job} has not ended {STOPS_WITHIN_SECONDS} s after it was told to; see its logs")
        time.sleep(0.5)
    return found


def dashboard(client: JobSubmissionClient, job: str) -> str:
    """The page of a job."""
    return f"{client.get_address()}/#/jobs/{job}"


async def _tail(client: JobSubmissionClient, job: str, write: Callable[[str], object]) -> None:
    """The cluster tells a log from its beginning; after a lost connection, what was written is passed over."""
    written = lost = 0
    while True:
        told = 0
        try:
            async for text in client.tail_job_logs(job):
                if told + len(text) > written:
                    write(text[max(0, written - told) :])
                    lost = 0
                told += len(text)
                written = max(written, told)
            return
        except (RuntimeError, OSError, aiohttp.ClientError) as error:
            lost += 1
            if lost > _RECONNECTIONS:
                raise BadInput(
                    f"the cluster at {client.get_address()} was lost ({_first(error)}); {job} may go on"
                ) from None
            await asyncio.sleep(2)


def _asked(address: str, headers: dict[str, str]) -> int:
    """The HTTP status with which the dashboard answers."""
    try:
        return requests.get(f"{address}/api/version", headers=headers, timeout=ANSWERS_WITHIN_SECONDS).status_code
    except requests.exceptions.RequestException as error:
        raise BadInput(
            f"{address}: no Ray dashboard answers there ({_first(error)}); is the cluster up, and its port open "
            "from here (for instance through `ray dashboard` or ssh -L 8265:localhost:8265 HEAD)?"
        ) from None


def _token() -> tuple[str, str]:
    """The token of this user, and where it stands; empty where there is none."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token, "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named or os.path.expanduser("~/.ray/auth_token"))
    try:
        return path.read_text(encoding="utf-8").strip(), str(path)
    except FileNotFoundError:
        return "", str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: the token cannot be read ({_first(error)})") from None


@contextmanager
def _plain_errors(address: str, job: str | None = None) -> Iterator[None]:
    """A cluster's refusals as one line."""
    try:
        yield
    except AuthenticationError as error:
        raise BadInput(f"{address}: the cluster refuses the token: {_first(error)}") from None
    except (RuntimeError, ValueError, ConnectionError, requests.exceptions.RequestException) as error:
        if job is not None and "status code 404" in str(error):
            raise BadInput(f"{address}: no job {job}; `raysd status --address {address}` lists them") from None
        raise BadInput(f"{address}: the cluster refuses: {_first(error)}") from None


def _first(error: BaseException) -> str:
    """The part of an error's text that says most: of a connection what the system said, of a traceback its end."""
    text = str(error).strip() or type(error).__name__
    if said := re.search(r"\[Errno -?\d+\] ([^'\")]+)", text):
        return said[1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1 if "Traceback" in text else 0][:300]


def _version() -> str:
    try:
        return metadata.version("raysd")
    except metadata.PackageNotFoundError:
        return ""
