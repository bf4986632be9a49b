"""A real S3 server on this machine, and the two kinds of results root; lets tests import the helper modules here."""

import importlib.util
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
BUCKET = "raysd-test"
SERVER = """
import sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # until whoever started it is gone
"""


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server in a process of its own, with the bucket `BUCKET`; nothing is kept on disk."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto, the S3 server, is not installed: pip install -e '.[dev]'")
    from pyarrow.fs import S3FileSystem

    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    words = [sys.executable, "-c", SERVER]
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=nothing, text=True) as server:
        assert server.stdin
        assert server.stdout
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        reached = {"access_key": "key", "secret_key": "secret", "region": "us-east-1", "endpoint_override": endpoint}
        S3FileSystem(**reached, allow_bucket_creation=True).create_dir(BUCKET)
        yield endpoint
        server.stdin.close()


@pytest.fixture
def s3_root(s3_endpoint: str) -> str:
    """A results root in that bucket, of this test alone, with credentials in it."""
    folder = f"{BUCKET}/{uuid.uuid4().hex}/results"
    return f"s3://key:hunter2@{folder}?endpoint_override={s3_endpoint}&region=us-east-1"


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """A results root that is not there yet, of either kind."""
    return tmp_path / "deep" / "root" if request.param == "folder" else request.getfixturevalue("s3_root")
