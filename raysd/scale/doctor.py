"""What a Ray cluster has, what will not work on it, and the fix: every node examines itself, then they are compared."""

import logging
import os
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.util
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysd import machine
from raysd.doctor import Ask, Corpus, Report, examine, read_corpus
from raysd.errors import BadInput
from raysd.machine import Finding, State
from raysd.results.storage import is_uri, open_storage, redacted
from raysd.scale.compare import (
    HERE,
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
from raysd.scale.connect import connected
from raysd.scale.join import NoCluster

CLUSTER = "cluster"
NODE_SECONDS = 180.0
"""How long a node may take: it imports torch, perhaps from a network disk, and lists all clips."""


@dataclass(frozen=True)
class Seen:
    """What one place says of itself: a node, or the process that asks."""

    findings: list[Finding]
    versions: dict[str, str]
    listing: str | None
    """Names the clips that lie there; None: none."""
    num_gpus: int
    """Those that torch can use."""
    reads: bool
    """Whether it can read what the process that asks has written to the results root."""


class _Node:
    """Runs on one node."""

    def examine(self, ask: Ask, probe: str) -> Seen:
        corpus = read_corpus(ask)
        seen = _seen(ask, corpus, probe, examine(ask, corpus), machine.num_gpus())
        if seen.reads:
            _write(ask, f"{probe}/{ray.get_runtime_context().get_node_id()}")
        return seen

    def now(self) -> float:
        return time.time()


def _seen(ask: Ask, corpus: object, probe: str, findings: list[Finding], num_gpus: int) -> Seen:
    listing = corpus.digest if isinstance(corpus, Corpus) else None
    return Seen(findings, machine.versions(), listing, num_gpus, _reads(ask, f"{probe}/{HERE}"))


def _reads(ask: Ask, name: str) -> bool:
    with suppress(BadInput):
        return open_storage(ask.results).read(name) == name.encode()
    return False


def _write(ask: Ask, name: str) -> None:
    with suppress(BadInput):
        open_storage(ask.results).replace(name, name.encode())


def examine_cluster(ask: Ask, seconds: float = NODE_SECONDS) -> Report:
    """The findings about the cluster of RAY_ADDRESS and about each of its nodes, which have `seconds` to answer."""
    address, auth_mode = os.environ["RAY_ADDRESS"], os.environ.get("RAY_AUTH_MODE")
    about = f"the cluster at {address}"
    with ExitStack() as stack:
        try:
            stack.enter_context(connected())
        except NoCluster as error:
            return Report(about, {CLUSTER: [Finding("connection", error.found, State.fails, error.fix)]})
        return Report(about, _examine(ask, auth_mode, seconds))


def _examine(ask: Ask, auth_mode: str | None, seconds: float) -> dict[str, list[Finding]]:
    nodes = ray.nodes()
    alive = named([node for node in nodes if node["Alive"]])
    with _probe(ask) as probe:
        actors = {name: _start(node["NodeID"]) for name, node in alive.items()}
        asked = {name: actor.examine.remote(ask, probe) for name, actor in actors.items()}
        here = _seen(ask, read_corpus(ask), probe, [], 0)
        seen, silent = _answers(asked, seconds)
        sees = {name: _reads(ask, f"{probe}/{alive[name]['NodeID']}") for name in seen}
    clocks = {name: clock for name in seen if (clock := _clock(actors[name]))}
    for actor in actors.values():
        ray.kill(actor)
    everywhere = {HERE: here, **seen}
    url = ray.init(ignore_reinit_error=True, logging_level=logging.CRITICAL, log_to_driver=False).dashboard_url
    status = http_status(url) if url else 0
    found = [
        nodes_alive(nodes),
        compare_versions({place: one.versions for place, one in everywhere.items()}),
        compare_clocks(clocks),
        compare_listings({place: one.listing for place, one in everywhere.items()}, ask.data_root),
        compare_results({place: one.reads for place, one in everywhere.items()}, sees, redacted(str(ask.results))),
        dashboard(url, status),
        token(status, auth_mode, [node["NodeManagerAddress"] for node in alive.values()]),
    ]
    by_node = {
        name: [resources(node["Resources"], seen[name].num_gpus), *seen[name].findings]
        if name in seen
        else [no_answer(silent[name], seconds)]
        for name, node in alive.items()
    }
    return {CLUSTER: found, **by_node}


@contextmanager
def _probe(ask: Ask) -> Iterator[str]:
    """A folder of the results root, with a file that all nodes should see; as far as it can be made."""
    probe = f".doctor-{uuid.uuid4().hex}"
    root = None if is_uri(ask.results) else Path(ask.results)
    new = [path for path in (root, *root.parents) if not path.exists()] if root else []
    try:
        _write(ask, f"{probe}/{HERE}")
        yield probe
    finally:
        with suppress(BadInput):
            open_storage(ask.results).delete_folder(probe)
        for path in new:
            with suppress(OSError):
                path.rmdir()


def _start(node_id: str) -> Any:
    """An actor on that node, which needs no room there."""
    return (
        ray.remote(_Node)
        .options(
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            # or Ray would hide the GPUs from what asks for none
            runtime_env={"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}},
        )
        .remote()
    )


def _answers(asked: Mapping[str, Any], seconds: float) -> tuple[dict[str, Seen], dict[str, Exception | None]]:
    """What the nodes say; and for those that say nothing the error, or None where they took too long."""
    seen: dict[str, Seen] = {}
    silent: dict[str, Exception | None] = {}
    ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds)
    for name, answer in asked.items():
        if answer not in ready:
            silent[name] = None
            continue
        try:
            seen[name] = ray.get(answer)
        except Exception as error:  # whatever happened there is what is to be told
            silent[name] = error
    return seen, silent


def _clock(actor: Any) -> Clock | None:
    """The best of three questions; None where the node no longer answers."""
    clocks = []
    for _ in range(3):
        began = time.time()
        try:
            there: float = ray.get(actor.now.remote(), timeout=30)
        except Exception:
            return None
        within = (time.time() - began) / 2
        clocks.append(Clock(there - began - within, within))
    return min(clocks, key=lambda clock: clock.within_s)


def http_status(url: str) -> int:
    """How `HOST:PORT` answers an HTTP request without a token; 0: not at all."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{url}/api/version", timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
