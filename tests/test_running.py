"""What a run needs is asked for before anything is launched."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

STUDY = """
question: "?"
baseline: recipes/spectrum_contrastive.yaml
design: list
variants: { short: { train.epochs: 1 } }
seeds: [0]
"""


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(("logger", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow")])
def test_a_logger_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path,
    raysd: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    logger: str,
    package: str,
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    words = [command, tmp_path / "study.yaml", "--data-root", tmp_path / "none", "--results", tmp_path / "results"]
    status, _, err = raysd(*words, "--set", f"scale.{logger}=logs")
    said = f"raysd: scale.{logger}: the package {package} is not installed; pip install 'raysd[{logger}]'"
    assert (status, said in err) == (2, True), err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("scale.tensorboard=s3://bucket/logs", "tensorboard s3://bucket/logs: expected a folder of this machine"),
        ("scale.mlflow=http://me:hunter2@host", "leave the credentials out; MLflow reads them from"),
    ],
)
def test_places_where_nothing_may_be_logged_are_refused(
    tmp_path: Path, raysd: Callable[..., tuple[int, str, str]], given: str, said: str
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    status, _, err = raysd("plan", tmp_path / "study.yaml", "--results", tmp_path / "results", "--set", given)
    assert (status, said in err, "hunter2" in err) == (2, True, False), err
