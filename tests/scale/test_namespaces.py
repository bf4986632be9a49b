"""Studies on a cluster of real hosts: submitted from one, run on the others, and finished when one is lost.

Each host has its own network and its own disk where namespaces are permitted; otherwise all share this machine's
loopback address, and the tests say so.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hosts import Cluster, new_cluster, until, why_no_namespaces

from raysd.results.store import Record, Results
from raysd.study.design import load_study, trials_of
from raysd.trial import Place, run_trial

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WHY_NOT = why_no_namespaces()
NAMESPACES = pytest.param(True, id="namespaces", marks=pytest.mark.skipif(bool(WHY_NOT), reason=f"{WHY_NOT}"))
LOOPBACK = pytest.param(False, id="loopback")
BEST = [NAMESPACES, LOOPBACK] if WHY_NOT else [NAMESPACES]
"""Loopback where namespaces are not permitted, which is then said by a skip."""

RECIPE = """
features: { num_bands: 32 }
segments: { train_seconds: 1.0 }
augment: { log_mixup_exp: {} }
encoder: { name: cnn, width: 0.125 }
train: { epochs: 300, batch_size: 16, precision: fp32 }
"""
STUDY = """
question: "Does it run on several nodes?"
baseline: recipe.yaml
design: list
variants:
  no mixup: { augment.log_mixup_exp: null }
seeds: [0, 1]
references: []
"""
SHORT = STUDY.replace("seeds: [0, 1]", "seeds: [0]\nchanges: { train.epochs: 5 }")
LONG = STUDY.replace("seeds: [0, 1]", "seeds: [0]\nchanges: { train.epochs: 600 }")


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, corpus: Callable[[int], Path]) -> Iterator[Cluster]:
    """A head and a node with one CPU each, and a client that has none."""
    with _cluster(request.param, corpus, head_cpus=1) as made:
        yield made


@pytest.mark.parametrize("cluster", [NAMESPACES, LOOPBACK], indirect=True)
def test_a_study_submitted_from_elsewhere_runs_on_all_nodes(cluster: Cluster, tmp_path: Path) -> None:
    client, project, results = cluster.hosts["client"], _project(tmp_path, STUDY), Results(cluster.shared / "submitted")
    submit = ("raysd", "submit", "study.yaml", "--address", cluster.dashboard)
    status, out, err = client.run(*submit, "--follow", "--results", str(results.root), cwd=project)
    assert status == 0, out + err
    _expect_a_whole_study(cluster, results, out, project, tmp_path)

    stranger = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    status, out, err = client.run(*submit, cwd=project, env=stranger)
    assert status == 2
    assert "the cluster wants a token" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("cluster", BEST, indirect=True)
def test_a_plain_ray_job_runs_a_study_on_all_nodes(cluster: Cluster, tmp_path: Path) -> None:
    client, project, results = cluster.hosts["client"], _project(tmp_path, STUDY), Results(cluster.shared / "plain")
    submit = ("ray", "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--")
    run = ("raysd", "run", "study.yaml", "--results", str(results.root))
    status, out, err = client.run(*submit, *run, cwd=project)
    assert status == 0, out + err
    _expect_a_whole_study(cluster, results, out, project, tmp_path)


@pytest.mark.parametrize("cluster", BEST, indirect=True)
def test_the_workers_of_one_trial_are_on_two_nodes(cluster: Cluster, tmp_path: Path) -> None:
    client, project, results = cluster.hosts["client"], _project(tmp_path, SHORT), Results(cluster.shared / "workers")
    submit = ("raysd", "submit", "study.yaml", "--address", cluster.dashboard, "--set", "scale.workers=2")
    status, out, err = client.run(*submit, "--follow", "--results", str(results.root), cwd=project)
    assert status == 0, out + err
    records = _records(results)
    assert len(records) == 2  # no node has CPUs for both workers of a trial
    for record in records.values():
        _expect_same_scores(record, _undisturbed(record, project, cluster, tmp_path))
    _expect_no_placement_groups(cluster)


@pytest.mark.parametrize("namespaces", BEST)
@pytest.mark.parametrize("head_cpus", [pytest.param(1, id="on what is left"), pytest.param(0, id="on a new node")])
def test_a_study_is_finished_though_a_node_is_lost(
    namespaces: bool, head_cpus: int, corpus: Callable[[int], Path], tmp_path: Path
) -> None:
    project = _project(tmp_path, LONG)
    with _cluster(namespaces, corpus, head_cpus) as cluster:
        results = Results(cluster.shared / "results")
        submit = ("ray", "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--")
        job = cluster.hosts["client"].start(*submit, "raysd", "run", "study.yaml", cwd=project)
        kept = until(lambda: _under_way(job, results, head_cpus + 1), "a trial on every node", 300)
        cluster.hosts["node"].power_off()
        if not head_cpus:
            cluster.ray_node("new", num_cpus=1)
        out, err = job.communicate(timeout=300)
        assert job.returncode == 0, out + err

        records = _records(results)
        assert len(records) == 2
        assert not len(results.failures())
        if namespaces:
            assert _hosts(results) == ({"head"} if head_cpus else {"new"})
        for record in records.values():
            history = list(record.history)
            assert [epoch["epoch"] for epoch in history] == list(range(1, 601))
            if before := kept.get(record.training_key):  # continued, and its first epochs not trained again
                assert history[: len(before)] == before
            _expect_same_scores(record, _undisturbed(record, project, cluster, tmp_path))
        assert set(kept) <= {record.training_key for record in records.values()}
        _expect_no_placement_groups(cluster)


@contextmanager
def _cluster(namespaces: bool, corpus: Callable[[int], Path], head_cpus: int) -> Iterator[Cluster]:
    with new_cluster(namespaces) as made:
        shutil.copytree(corpus(2020), made.shared / "data")
        made.ray_head("head", num_cpus=head_cpus)
        made.ray_node("node", num_cpus=1)
        made.host("client")
        until(lambda: made.alive() == 2, "both nodes to be alive")
        yield made
    assert not made.processes()


def _project(folder: Path, study: str) -> Path:
    """What is submitted: a study and its recipe."""
    project = folder / "project"
    project.mkdir()
    (project / "study.yaml").write_text(study, encoding="utf-8")
    (project / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return project


def _expect_a_whole_study(cluster: Cluster, results: Results, out: str, project: Path, folder: Path) -> None:
    assert "official score" in out
    assert out.count("2/2") >= 2  # seeds there, of seeds asked for
    records = _records(results)
    assert len(records) == 4
    assert {record.state for record in records.values()} == {"done"}
    assert not len(results.failures())
    assert not list(Path(results.root).glob("work/*/"))
    if cluster.namespaces:
        assert _hosts(results) == {"head", "node"}
        for name in ("head", "node"):  # each has built its own store, on its own disk
            assert list(cluster.hosts[name].disk.glob("cache/*/samples.bin")), name
    for record in {_host(record): record for record in records.values()}.values():
        _expect_same_scores(record, _undisturbed(record, project, cluster, folder))
    _expect_no_placement_groups(cluster)


def _expect_no_placement_groups(cluster: Cluster) -> None:
    code = (
        "import json, ray, ray.util\n"
        "ray.init(address='auto', log_to_driver=False)\n"
        "print(json.dumps([group['state'] for group in ray.util.placement_group_table().values()]))\n"
    )
    head = cluster.hosts["head"]
    there = {"RAY_ADDRESS": f"{head.address}:{cluster.gcs_port}"}
    status, out, err = head.run(sys.executable, "-c", code, env=there)
    assert status == 0, err
    assert set(json.loads(out.splitlines()[-1])) == {"REMOVED"}


def _under_way(job: subprocess.Popen[str], results: Results, trials: int) -> dict[str, list[dict]]:
    """The histories in the checkpoints, by training, once that many trainings have a few epochs behind them."""
    assert job.poll() is None, "".join(job.communicate())
    kept = {
        checkpoint.parent.name: torch.load(checkpoint, weights_only=True)["history"]
        for checkpoint in Path(results.root).glob("work/*/all.pt")
    }
    return kept if len(kept) == trials and all(len(history) > 2 for history in kept.values()) else {}


def _records(results: Results) -> dict[str, Record]:
    return {key: results.read(key) for key in sorted(results.done())}


def _hosts(results: Results) -> set[str]:
    """The names of the hosts that the trials ran on."""
    return {_host(record) for record in _records(results).values()}


def _host(record: Record) -> str:
    return json.loads(record.provenance)["host"]


def _undisturbed(record: Record, project: Path, cluster: Cluster, folder: Path) -> Record:
    """The same trial, run in this process without Ray, in a results root of its own."""
    place = Place(cluster.shared / "data", folder / "cache", folder / "undisturbed")
    trials = trials_of(load_study(project / "study.yaml"), record.data_fingerprint)
    return run_trial(next(trial for trial in trials if trial.key == record.key), place)


def _expect_same_scores(one: Record, other: Record) -> None:
    first, second = (pd.DataFrame(record.scores).sort_values("path")["score"].to_numpy() for record in (one, other))
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)
