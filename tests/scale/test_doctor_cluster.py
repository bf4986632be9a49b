"""`raysd doctor` of a real cluster of two nodes on this machine, and of none."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from raysd.doctor import Ask, Report
from raysd.machine import Finding, State, num_gpus
from raysd.scale.doctor import CLUSTER, examine_cluster, http_status


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes, of which the second claims a GPU; no dashboard."""
    store_bytes = 150 << 20
    head = {"num_cpus": 1, "object_store_memory": store_bytes, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        made.add_node(num_cpus=1, object_store_memory=store_bytes, num_gpus=1)
        made.wait_for_nodes()
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def the(report: Report, place: str, check: str) -> Finding:
    (found,) = [one for one in report.findings[place] if one.check == check]
    return found


@pytest.mark.timeout(300)
def test_every_node_is_examined_and_compared(
    cluster: Cluster, corpus: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(cluster.address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    ask = Ask(tmp_path / "results", tmp_path / "cache", corpus(2020), 2020)
    report = examine_cluster(ask)

    assert address in report.about
    _, first, second = report.findings
    for check in ("nodes", "versions", "clocks", "same data", "same results"):
        assert the(report, CLUSTER, check).state == State.ok, the(report, CLUSTER, check)
    assert "2 alive with 2 CPUs and 1 GPUs" in the(report, CLUSTER, "nodes").found
    assert the(report, CLUSTER, "dashboard").state == State.warning
    assert the(report, CLUSTER, "token").state == State.unknown
    for place in (first, second):
        for check in ("python", "raysd", "torch", "torchaudio", "ray", "packages", "clock", "data", "store", "results"):
            assert the(report, place, check).state in (State.ok, State.warning), the(report, place, check)
        assert "56 clips" in the(report, place, "data").found
    claims = [the(report, place, "resources") for place in (first, second)]
    if not num_gpus():
        assert sorted(one.state for one in claims) == [State.ok, State.fails]
        assert not report.works
    assert not list(tmp_path.iterdir())  # nothing is left behind
    assert not ray.is_initialized()

    hurried = examine_cluster(ask, seconds=0)  # nodes that are too slow
    for place in (first, second):
        assert the(hurried, place, "node").state == State.fails
    for check in ("versions", "clocks", "same data", "same results"):
        assert the(hurried, CLUSTER, check).state == State.unknown
    assert not list(tmp_path.iterdir())


def test_an_address_where_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # but it does not listen
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        report = examine_cluster(Ask(tmp_path, tmp_path))
        assert http_status(address) == 0
    assert the(report, CLUSTER, "connection").state == State.fails
    assert "nobody listens" in the(report, CLUSTER, "connection").found
    assert list(report.findings) == [CLUSTER]
