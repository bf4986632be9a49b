"""What a cluster has room for: how many trials of a scale at once, and whether any at all."""

import math
from dataclasses import dataclass

import ray
from ray._private.state import state

from raysd.errors import BadInput
from raysd.parallel import Scale


@dataclass(frozen=True)
class Nodes:
    """`count` nodes that have, or will have when the cluster has grown, the same resources."""

    resources: dict[str, float]
    count: int = 1

    def workers(self, scale: Scale) -> int:
        """Workers that fit on one of them."""
        cpus, gpus = self.resources.get("CPU", 0.0), self.resources.get("GPU", 0.0)
        fit = math.floor(cpus / scale.cpus_per_worker + 1e-6)
        if scale.gpus_per_worker >= 1:
            fit = min(fit, int(gpus // scale.gpus_per_worker))
        elif scale.gpus_per_worker:  # no worker gets parts of two
            fit = min(fit, int(gpus) * math.floor(1 / scale.gpus_per_worker + 1e-6))
        return fit


def nodes() -> list[Nodes]:
    """The nodes of the cluster, or, where it grows by itself, those it may grow to."""
    alive = [Nodes(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    grown = state.get_cluster_config()
    if grown is None:
        return alive
    return alive + [Nodes(dict(group.resources), group.max_count) for group in grown.node_group_configs]


def groups_at_once(scale: Scale, nodes: list[Nodes]) -> int:
    """How many trials can be trained at the same time. Raises BadInput where not even one can.

    A trial that can never be placed would wait for ever.
    """
    fit = sum(found.workers(scale) * found.count for found in nodes)
    if fit >= scale.workers:
        return fit // scale.workers
    for name, wanted in (("CPU", scale.cpus_per_worker), ("GPU", scale.gpus_per_worker)):
        largest = max((found.resources.get(name, 0.0) for found in nodes), default=0.0)
        if wanted > largest:
            raise BadInput(
                f"scale.{name.lower()}s_per_worker is {wanted:g}, but no machine here has more than {largest:g} {name}s"
            )
    raise BadInput(
        f"scale.workers is {scale.workers}, but only {fit} workers of {scale.cpus_per_worker:g} CPUs and "
        f"{scale.gpus_per_worker:g} GPUs fit here; ask for fewer or smaller ones"
    )
