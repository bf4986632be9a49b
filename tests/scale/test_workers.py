"""Trials of several workers under Ray Train: what one process would compute, whoever dies on the way."""

import os
import signal
import threading
from collections.abc import Callable

import numpy as np
import pytest
from workplace import STUDY, Workplace, epochs_kept, scores, until, workers_of

from raysd.errors import BadInput
from raysd.parallel import Scale
from raysd.scale.room import Nodes, groups_at_once

TWO = "scale: { workers: 2, cpus_per_worker: 0.5 }\n"
# the small rate keeps rounding, which differs with the number of workers, from growing into other scores
LONG = (
    STUDY.replace(
        "seeds: [0, 1]", "seeds: [0]\nreferences: []\nchanges: { train: { epochs: 60, learning_rate: 1.0e-5 } }"
    )
    + TWO
)


def test_two_workers_survive_the_death_of_one(workplace: Callable[[str], Workplace]) -> None:
    """One run for three promises, since a group takes ten seconds to start: the numbers of one process, a worker killed
    in the middle of an epoch, and warm trials after it."""
    place = workplace(LONG)
    study = place.start()
    until(lambda: len(epochs_kept(place.folder / "results")) > 2, "the first epochs")
    victims = workers_of(place.folder, "ray::RayTrainWorker")
    assert len(victims) == 2
    os.kill(victims[1], signal.SIGKILL)
    _, err = study.communicate(timeout=240)
    assert study.returncode == 0, err
    assert len(place.results.failures()) == 0
    records = place.records()
    assert len(records) == 3
    for key, record in records.items():
        assert [epoch["epoch"] for epoch in record.history] == list(range(1, 61))
        np.testing.assert_allclose(scores(record), scores(place.undisturbed(key)), rtol=1e-3, atol=1e-4)
    until(lambda: not workers_of(place.folder, "ray::RayTrainWorker"), "the workers to end", 60)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_is_lost_in_the_middle_of_a_trial(
    workplace: Callable[[str], Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group's node goes, a new one comes: the trial goes on from its last epoch to the same scores."""
    from ray.cluster_utils import Cluster

    place = workplace(LONG.replace("  no mixup: { augment.log_mixup_exp: null }\n", ""))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        node = cluster.add_node(num_cpus=1)
        monkeypatch.setenv("RAY_ADDRESS", str(cluster.address))
        ended: list[tuple[int, str, str]] = []
        run = threading.Thread(target=lambda: ended.append(place.run()))
        run.start()
        until(lambda: len(epochs_kept(place.folder / "results")) > 2 or ended, "the first epochs", 200)
        assert not ended, ended
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        run.join(400)
        assert ended
        assert ended[0][0] == 0, ended[0][2]
    finally:
        cluster.shutdown()
    assert len(place.records()) == 2
    assert len(place.results.failures()) == 0
    for key, record in place.records().items():
        assert [epoch["epoch"] for epoch in record.history] == list(range(1, 61))
        np.testing.assert_allclose(scores(record), scores(place.undisturbed(key)), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_trial_that_fails_costs_no_other(workplace: Callable[[str], Workplace]) -> None:
    """One that explodes leaves the group as it is; one with an error of its own takes it along, and a new one comes."""
    bad = """  explodes: { train.learning_rate: 1.0e+30 }
  huge: { loss.contrastive.hidden_dim: 10000000000 }
seeds: [0]
"""
    place = workplace(STUDY.replace("seeds: [0, 1]", bad) + TWO)
    status, _, err = place.run()
    assert status == 1, err
    assert "2 of 6 trials failed" in err
    assert len(place.results.done()) == 4
    kinds = sorted(place.results.failures()[["variant", "failure_kind"]].itertuples(index=False, name=None))
    assert kinds == [("explodes", "non_finite"), ("huge", "oom"), ("huge", "oom")]


def test_more_workers_than_fit_are_refused(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(STUDY)
    status, _, err = place.run("run", "--workers", "1000")
    assert status == 2
    assert "scale.workers is 1000" in err.strip().splitlines()[-1]
    assert not place.results.done()


NODE, BIG = Nodes({"CPU": 4.0}), Nodes({"CPU": 16.0, "GPU": 4.0})


@pytest.mark.parametrize(
    ("scale", "nodes", "at_once"),
    [
        ({"gpus_per_worker": 0.25}, [NODE, BIG], 16),  # four on a GPU
        ({"gpus_per_worker": 0.3}, [BIG], 12),
        ({"workers": 2}, [NODE], 2),
        ({"workers": 3}, [NODE], 1),
        ({"workers": 3, "cpus_per_worker": 2}, [NODE, NODE], 1),  # two fit on each
        ({"workers": 2, "cpus_per_worker": 0.1}, [NODE], 20),
        ({"workers": 4, "gpus_per_worker": 1}, [NODE, BIG, BIG], 2),
        ({"workers": 2, "gpus_per_worker": 1, "cpus_per_worker": 8}, [BIG], 1),
        ({"workers": 4, "gpus_per_worker": 1}, [NODE, Nodes(BIG.resources, 3)], 3),  # the nodes of an autoscaler
    ],
)
def test_how_many_trials_at_once(scale: dict, nodes: list[Nodes], at_once: int) -> None:
    assert groups_at_once(Scale.model_validate(scale), nodes) == at_once


@pytest.mark.parametrize(
    ("scale", "nodes", "said"),
    [
        ({"workers": 5}, [NODE], "scale.workers is 5, but only 4 workers"),
        ({"workers": 2, "gpus_per_worker": 1}, [NODE], "no machine here has more than 0 GPUs"),
        ({"cpus_per_worker": 5}, [NODE, NODE], "no machine here has more than 4 CPUs"),
        ({"workers": 2, "cpus_per_worker": 3}, [NODE], "only 1 workers of 3 CPUs"),
        ({}, [], "no machine here has more than 0 CPUs"),
    ],
)
def test_what_no_cluster_could_ever_place_is_refused(scale: dict, nodes: list[Nodes], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        groups_at_once(Scale.model_validate(scale), nodes)
