"""The node that holds a cluster together is killed in the middle of a study."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from places import finished
from workplace import STUDY, Workplace, epochs_kept, family, until

LONG = STUDY.replace("seeds: [0, 1]", "seeds: [0]\nreferences: []\nchanges: { train: { epochs: 600 } }")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_study_whose_head_node_is_killed_is_continued(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(LONG)
    short, port = Path(f"/tmp/h{os.getpid()}"), free_port()
    short.mkdir()
    address = f"127.0.0.1:{port}"
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    words = ["start", "--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2", f"--temp-dir={short}"]
    cluster = subprocess.Popen(
        [str(Path(sys.executable).with_name("ray")), *words, "--include-dashboard=false", "--block"],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: (short / "ray_current_cluster").exists(), "the cluster", 240)
        study = place.start(env={"RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": address})
        until(lambda: len(epochs_kept(place.results.root)) > 2 or study.poll() is not None, "the first epochs", 300)
        assert study.poll() is None, study.communicate()[1]
        os.killpg(cluster.pid, signal.SIGKILL)
        for pid in family(cluster):
            os.kill(pid, signal.SIGKILL)
        _, err = study.communicate(timeout=400)
    finally:
        for pid in family(cluster):
            os.kill(pid, signal.SIGKILL)
        cluster.wait()
        shutil.rmtree(short, ignore_errors=True)
    assert study.returncode != 0
    assert "Failed to connect to GCS within 60 seconds. GCS may have been killed" in err
    kept = epochs_kept(place.results.root)
    assert len(kept) > 2
    done = place.records()
    status, _, err = finished(place.start())  # on this machine alone
    assert status == 0, err
    records = place.records()
    assert len(records) == 3
    assert {key: records[key] for key in done} == done
    assert [record for record in records.values() if list(record.history)[: len(kept)] == kept]  # continued
