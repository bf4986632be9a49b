"""What the nodes of a cluster say, compared: what will not work with all of them together, and the fix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysd.machine import Finding, State, size

HERE = "here"
"""The place of the process that asks."""
CLOCK_WARNING_S, CLOCK_FAILS_S = 1.0, 900.0
"""Object storage refuses requests whose time is a quarter of an hour off."""


@dataclass(frozen=True)
class Clock:
    """A node's clock against that of the process that asks."""

    ahead_s: float
    within_s: float
    """Half the time that the question took: `ahead_s` is known no better."""


def named(nodes: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The nodes by address; those that share one by the beginning of their id, too."""
    addresses = [node["NodeManagerAddress"] for node in nodes]
    return {
        address if addresses.count(address) == 1 else f"{address} ({node['NodeID'][:6]})": node
        for address, node in zip(addresses, nodes, strict=True)
    }


def nodes_alive(nodes: Sequence[dict[str, Any]]) -> Finding:
    """How many nodes there are, what they have together, and which died."""
    alive, dead = ([node for node in nodes if node["Alive"] is state] for state in (True, False))
    totals = {name: sum(node["Resources"].get(name, 0) for node in alive) for name in ("CPU", "GPU")}
    found = f"{len(alive)} alive with {totals['CPU']:g} CPUs and {totals['GPU']:g} GPUs"
    if not totals["CPU"]:
        fix = "start nodes with `ray start --num-cpus N`: every worker takes a CPU"
        return Finding("nodes", found, State.fails, fix)
    if dead:
        why = "; ".join(f"{n['NodeManagerAddress']}: {n.get('DeathReasonMessage') or 'no reason told'}" for n in dead)
        fix = "nothing if they were taken away; else look at them, and `ray start --address` them again"
        return Finding("nodes", f"{found}; {len(dead)} dead ({why[:300]})", State.warning, fix)
    return Finding("nodes", found, State.ok)


def compare_versions(versions: Mapping[str, Mapping[str, str]]) -> Finding:
    """`versions`: by place and package. Builds of one torch, for CPUs and for GPUs, are the same."""
    if len(versions) < 2:
        return Finding("versions", "no node answered", State.unknown)
    differing = {}
    for name in dict.fromkeys(name for some in versions.values() for name in some):
        places = _places({place: some.get(name, "none").split("+")[0] for place, some in versions.items()})
        if len(places) > 1:
            differing[name] = f"{name} " + ", ".join(f"{version} ({where})" for version, where in places.items())
    if not differing:
        return Finding("versions", f"the same in all {len(versions)} places", State.ok)
    fix = "install the same versions everywhere; raysd submit takes raysd itself along"
    numbers_only = differing.keys() <= {"torch", "torchaudio"}
    return Finding("versions", "; ".join(differing.values()), State.warning if numbers_only else State.fails, fix)


def compare_clocks(clocks: Mapping[str, Clock]) -> Finding:
    """The largest difference of which one can be sure."""
    if not clocks:
        return Finding("clocks", "no node told its time", State.unknown)
    name, worst = max(clocks.items(), key=lambda one: abs(one[1].ahead_s) - one[1].within_s)
    off = abs(worst.ahead_s) - worst.within_s
    way = "ahead" if worst.ahead_s > 0 else "behind"
    found = f"{name} is {abs(worst.ahead_s):.3g} s {way} (± {worst.within_s:.2g})"
    fix = f"set the clock of {name}: sudo timedatectl set-ntp true"
    if off > CLOCK_WARNING_S:
        return Finding("clocks", found, State.fails if off > CLOCK_FAILS_S else State.warning, fix)
    if slow := [name for name, clock in clocks.items() if clock.within_s > CLOCK_WARNING_S]:
        return Finding("clocks", f"the answers of {', '.join(slow)} took too long to tell", State.unknown)
    return Finding("clocks", f"less than {CLOCK_WARNING_S:g} s apart: {found}", State.ok)


def compare_listings(listings: Mapping[str, str | None], root: Path | None) -> Finding:
    """Whether every place has the same clips."""
    if root is None:
        return Finding("same data", "no data root was given", State.unknown, "give --data-root")
    if len(listings) < 2:
        return Finding("same data", "no node answered", State.unknown)
    places = _places({place: listing or "no usable data" for place, listing in listings.items()})
    if len(places) == 1 and None not in listings.values():
        return Finding("same data", f"the same clips in all {len(listings)} places", State.ok)
    found = "; ".join(f"{listing}: {where}" for listing, where in places.items())
    fix = f"put the same files at {root} everywhere (rsync -a, or a shared file system)"
    return Finding("same data", found, State.fails, fix)


def compare_results(reads: Mapping[str, bool], sees: Mapping[str, bool], root: str) -> Finding:
    """`reads`: who can read what was written here. `sees`: of which nodes what they wrote can be read here."""
    fix = "give a folder on a shared file system, or object storage (s3://...), with --results"
    if not reads[HERE]:
        return Finding("same results", f"{root}: nothing can be written here", State.fails, fix)
    apart = [name for name, seen in sees.items() if not (seen and reads[name])]
    if apart:
        found = f"{root} is not the same folder, or not writable, on {', '.join(apart)}"
        return Finding("same results", found, State.fails, fix)
    if not sees:
        return Finding("same results", "no node answered", State.unknown)
    return Finding("same results", f"{root}: written here and read there, and the other way round", State.ok)


def dashboard(url: str | None, status: int) -> Finding:
    """Whether jobs can be submitted from here; `status`: how it answers a request without a token, 0: not at all."""
    fix = "ray start --head --dashboard-host=0.0.0.0 (needs ray[default]); only jobs and status pages need it"
    if not url:
        return Finding("dashboard", "none: raysd submit will not work", State.warning, fix)
    if not status:
        return Finding("dashboard", f"http://{url} does not answer from here", State.warning, fix)
    return Finding("dashboard", f"http://{url}", State.ok)


def token(status: int, auth_mode: str | None, addresses: Sequence[str]) -> Finding:
    """Whether strangers can run code on the cluster; `status`: how its dashboard answers a request without a token."""
    match status:
        case 401 | 403:
            if auth_mode == "token":
                return Finding("token", "the cluster wants one", State.ok)
            fix = "export RAY_AUTH_MODE=token"
            found = "the cluster wants one; `ray job submit` and `ray status` do not send it from here"
            return Finding("token", found, State.warning, fix)
        case 200:
            if all(address.startswith("127.") for address in addresses):
                return Finding("token", "none wanted, but only this machine can reach the cluster", State.ok)
            fix = "export RAY_AUTH_MODE=token and give all nodes one ~/.ray/auth_token before `ray start`"
            found = "none wanted: whoever reaches the cluster can run code on it"
            return Finding("token", found, State.warning, fix)
    return Finding("token", "not known without a dashboard that answers", State.unknown)


def resources(has: Mapping[str, float], num_gpus: int) -> Finding:
    """What Ray was told that a node has; `num_gpus`: those that torch can use there."""
    cpus, gpus = has.get("CPU", 0), has.get("GPU", 0)
    found = f"{cpus:g} CPUs, {gpus:g} GPUs, {size(int(has.get('memory', 0)))} for workers"
    fix = f"ray start --num-gpus={num_gpus}"
    if gpus > num_gpus:
        return Finding("resources", f"{found}; but torch can use {num_gpus} GPUs", State.fails, fix)
    if gpus < num_gpus:
        return Finding("resources", f"{found}; but torch could use {num_gpus} GPUs", State.warning, fix)
    return Finding("resources", found, State.ok)


def no_answer(error: Exception | None, seconds: float) -> Finding:
    """Why a node says nothing; None: it took too long."""
    if error is None:
        fix = "look at its processes and at the network disks that it uses"
        return Finding("node", f"no answer within {seconds:g} s", State.fails, fix)
    last = str(error).strip().rpartition("\n")[2]  # Ray quotes the traceback there, whose last line says most
    if "No module named" in last:
        fix = "install raysd for the Python that runs `ray start` there; raysd submit takes raysd itself along"
        return Finding("node", f"raysd cannot be imported there: {last}", State.fails, fix)
    return Finding("node", f"{type(error).__name__}: {last}"[:300], State.fails, "see the logs of the node")


def _places(values: Mapping[str, str]) -> dict[str, str]:
    """Each value with the places that have it."""
    return {value: ", ".join(p for p, other in values.items() if other == value) for value in values.values()}
