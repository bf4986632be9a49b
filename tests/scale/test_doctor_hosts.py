"""`raysd doctor` of hosts with networks and disks of their own, where much can differ that does not on one machine."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosts import Cluster, Host, new_cluster, until, why_no_namespaces

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(why_no_namespaces()), reason=f"{why_no_namespaces()}"),
]


@pytest.fixture(scope="module")
def cluster(corpus: Callable[[int], Path]) -> Iterator[Cluster]:
    """A head and a node: data that both share, and other data on the head's own disk."""
    with new_cluster(True) as made:
        shutil.copytree(corpus(2020), made.shared / "data")
        made.ray_head("head", num_cpus=1)
        made.ray_node("node", num_cpus=1)
        shutil.copytree(corpus(2020), made.hosts["head"].disk / "data")
        until(lambda: made.alive() == 2, "both nodes to be alive")
        yield made


def examined(cluster: Cluster, *words: str, **env: str) -> tuple[int, dict[tuple[str, str], dict[str, str]]]:
    """Exit status and findings, by place and check, of `raysd doctor` on the head."""
    head: Host = cluster.hosts["head"]
    address = f"{head.address}:{cluster.gcs_port}"
    status, out, err = head.run("raysd", "doctor", "--json", *words, env={"RAY_ADDRESS": address, **env})
    assert out, err
    assert "Traceback" not in err
    return status, {(one["place"], one["check"]): one for one in json.loads(out)["findings"]}


def test_what_all_hosts_share_works(cluster: Cluster) -> None:
    status, found = examined(cluster)
    assert status == 0, found
    addresses = {host.address for host in cluster.hosts.values()}
    assert {place for place, _ in found} == {"cluster", *addresses}
    for check in ("nodes", "versions", "clocks", "same data", "same results", "dashboard", "token"):
        assert found["cluster", check]["state"] == "ok", found["cluster", check]
    assert not (cluster.shared / "results").exists()


def test_what_only_one_host_has_does_not(cluster: Cluster) -> None:
    head, node = cluster.hosts["head"], cluster.hosts["node"]
    own = str(head.local)
    status, found = examined(cluster, "--results", f"{own}/results", "--data-root", f"{own}/data")
    assert status == 1
    assert found["cluster", "same results"]["state"] == "will not work"
    assert node.address in found["cluster", "same results"]["found"]
    assert found["cluster", "same data"]["state"] == "will not work"
    assert found[head.address, "data"]["state"] == "ok"
    assert found[node.address, "data"]["state"] == "will not work"
    assert "no such folder" in found[node.address, "data"]["found"]
    assert found["cluster", "versions"]["state"] == "ok"
    for host in (head, node):
        assert not (host.disk / "results").exists()


def test_a_stranger_is_told_of_the_token(cluster: Cluster) -> None:
    status, found = examined(cluster, RAY_AUTH_TOKEN="another-token-than-the-clusters-own")
    assert status == 1
    assert found["cluster", "connection"]["state"] == "will not work"
    assert "wants a token" in found["cluster", "connection"]["found"]
