"""What nodes say, compared: each comparison where it holds, and where it fails."""

from pathlib import Path

from raysd.machine import Finding, State
from raysd.scale.compare import (
    Clock,
    compare_clocks,
    compare_listings,
    compare_results,
    compare_versions,
    dashboard,
    named,
    no_answer,
    nodes_alive,
    resources,
    token,
)

VERSIONS = {"python": "3.11.7", "raysd": "0.1.0 (code 12345678)", "torch": "2.13.0+cpu", "ray": "2.60.0"}


def expect(finding: Finding, state: State, *words: str) -> None:
    assert finding.state == state, finding
    for word in words:
        assert word in finding.found + finding.fix, finding
    assert finding.fix or state in (State.ok, State.unknown), finding
    assert "\n" not in finding.found + finding.fix


def node(address: str, alive: bool = True, **more: object) -> dict:
    resources = {"CPU": 2.0, "GPU": 1.0} if alive else {}
    return {"NodeManagerAddress": address, "NodeID": f"id-of-{address}", "Alive": alive, "Resources": resources, **more}


def test_versions() -> None:
    expect(compare_versions({"here": VERSIONS}), State.unknown)
    expect(compare_versions({"here": VERSIONS, "a": {**VERSIONS, "torch": "2.13.0+cu130"}}), State.ok, "2 places")
    for name, version, state in (
        ("ray", "2.59.0", State.fails),
        ("python", "3.12.1", State.fails),
        ("raysd", "0.1.0 (code 87654321)", State.fails),
        ("torch", "2.12.0+cpu", State.warning),
    ):
        found = compare_versions({"here": VERSIONS, "a": VERSIONS, "b": {**VERSIONS, name: version}})
        expect(found, state, f"{name} {VERSIONS[name].split('+')[0]} (here, a), {version.split('+')[0]} (b)")
    lacking = {name: version for name, version in VERSIONS.items() if name != "ray"}
    expect(compare_versions({"here": lacking, "a": VERSIONS}), State.fails, "ray none (here), 2.60.0 (a)")


def test_clocks() -> None:
    expect(compare_clocks({}), State.unknown)
    expect(compare_clocks({"a": Clock(0.01, 0.002), "b": Clock(-0.3, 0.002)}), State.ok, "b is 0.3 s behind")
    expect(compare_clocks({"a": Clock(0.01, 0.002), "b": Clock(-30.0, 0.002)}), State.warning, "b is 30 s behind")
    expect(compare_clocks({"a": Clock(3600.0, 0.002), "b": Clock(-30.0, 0.002)}), State.fails, "clock of a")
    # what took seconds to ask says nothing of less
    expect(compare_clocks({"a": Clock(2.5, 3.0), "b": Clock(0.0, 0.001)}), State.unknown, "answers of a")
    expect(compare_clocks({"a": Clock(9.0, 3.0)}), State.warning, "a is 9 s ahead")


def test_data() -> None:
    root = Path("/data")
    expect(compare_listings({"here": None, "a": None}, None), State.unknown, "--data-root")
    expect(compare_listings({"here": "aaa"}, root), State.unknown)
    expect(compare_listings({"here": "aaa", "a": "aaa"}, root), State.ok)
    expect(compare_listings({"here": "aaa", "a": "bbb"}, root), State.fails, "bbb: a", "rsync")
    expect(compare_listings({"here": "aaa", "a": None}, root), State.fails, "no usable data: a")
    expect(compare_listings({"here": None, "a": None}, root), State.fails)


def test_results() -> None:
    place = "/results"
    expect(compare_results({"here": True, "a": True}, {"a": True}, place), State.ok)
    expect(compare_results({"here": True}, {}, place), State.unknown)
    expect(compare_results({"here": False, "a": False}, {"a": False}, place), State.fails, "written here")
    expect(compare_results({"here": True, "a": True, "b": False}, {"a": True, "b": False}, place), State.fails, "on b")
    expect(compare_results({"here": True, "a": True}, {"a": False}, place), State.fails, "not writable, on a")


def test_nodes() -> None:
    expect(nodes_alive([node("a"), node("b")]), State.ok, "2 alive with 4 CPUs and 2 GPUs")
    dead = node("c", alive=False, DeathReasonMessage="health check failed")
    expect(nodes_alive([node("a"), dead]), State.warning, "1 dead (c: health check failed)")
    expect(nodes_alive([{**node("a"), "Resources": {"GPU": 1.0}}]), State.fails, "--num-cpus")
    assert list(named([node("a"), node("b")])) == ["a", "b"]
    twins = [{**node("a"), "NodeID": "123456789"}, {**node("a"), "NodeID": "abcdefghi"}, node("b")]
    assert list(named(twins)) == ["a (123456)", "a (abcdef)", "b"]


def test_resources() -> None:
    has = {"CPU": 8.0, "GPU": 2.0, "memory": 2.0**34}
    expect(resources(has, 2), State.ok, "8 CPUs, 2 GPUs, 16.0 GiB")
    expect(resources(has, 0), State.fails, "torch can use 0 GPUs")
    expect(resources({"CPU": 8.0}, 1), State.warning, "--num-gpus=1")


def test_dashboard_and_token() -> None:
    far, near = ["10.0.0.1", "10.0.0.2"], ["127.0.0.1", "127.0.0.1"]
    expect(dashboard("h:8265", 200), State.ok, "http://h:8265")
    expect(dashboard("h:8265", 401), State.ok)
    expect(dashboard("h:8265", 0), State.warning, "does not answer")
    expect(dashboard(None, 0), State.warning, "none", "ray[default]")
    expect(token(401, "token", far), State.ok)
    expect(token(401, None, far), State.warning, "export RAY_AUTH_MODE=token")
    expect(token(200, None, far), State.warning, "can run code", "auth_token")
    expect(token(200, None, near), State.ok)
    expect(token(0, "token", far), State.unknown)


def test_why_there_is_no_answer() -> None:
    quoted = "The actor died in its creation task\n  File x\nModuleNotFoundError: No module named 'raysd.scale'"
    expect(no_answer(RuntimeError(quoted), 5), State.fails, "No module named 'raysd.scale'", "install raysd")
    expect(no_answer(RuntimeError("The actor died\nMemoryError: no more"), 5), State.fails, "MemoryError: no more")
    expect(no_answer(None, 5), State.fails, "no answer within 5 s")
