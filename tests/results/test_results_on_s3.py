"""A study whose results are in object storage, from the first epoch to the printed table."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from raysd.recipe import Recipe
from raysd.results.storage import StorageError, open_storage
from raysd.results.store import Results
from raysd.session import Session
from raysd.study.design import load_study
from raysd.train import Epoch
from raysd.trial import failure_kind, run_trial

STUDY = {
    "question": "Does it help to change high frequencies?",
    "baseline": "tiny.yaml",
    "factors": {"high_frequency": {"setting": "augment.high_frequency"}},
    "design": "leave_one_out",
    "seeds": [0],
    "references": [],
}


@pytest.fixture
def study(tmp_path: Path, tiny_recipe: Recipe) -> Path:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe.model_dump(mode="json")), encoding="utf-8")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    return tmp_path / "study.yaml"


def test_a_study_on_s3_is_the_study_in_a_folder(
    study: Path,
    s3_root: str,
    corpus: Callable[[int], Path],
    cache_dir: Path,
    tmp_path: Path,
    raysd: Callable[..., tuple[int, str, str]],
) -> None:
    sessions = [
        Session(load_study(study), Results(root), corpus(2020), cache_dir) for root in (tmp_path / "results", s3_root)
    ]
    for session in sessions:
        session.decode()
        for trial in session.missing():
            run_trial(trial, session.place(("raysd", "run", "--results", str(session.results.root))))
        assert session.missing() == []
    local, remote = (session.results for session in sessions)
    assert remote.done() == local.done() != set()
    assert remote.trained() == local.trained()
    assert remote.checkpoints() == {}
    assert [table.to_csv() for table in sessions[1].tables()] == [table.to_csv() for table in sessions[0].tables()]
    (folder,), filesystem = open_storage(s3_root).for_arrow(["trials"])
    assert set(pd.read_parquet(folder, filesystem=filesystem)["key"]) == local.done()  # without raysd, too
    for name in open_storage(s3_root).names("", ""):
        assert b"hunter2" not in (open_storage(s3_root).read(name) or b"")
    (words,) = {tuple(json.loads(row["provenance"])["command"]) for row in remote.rows(["provenance"])}
    assert words[3].startswith("s3://***@raysd-test/")

    status, out, _ = raysd("table", study, "--results", s3_root, "--format", "markdown")
    assert (status, out) == (0, "".join(table.to_markdown() for table in sessions[0].tables()))
    status, _, err = raysd("table", study, "--results", s3_root.replace("raysd-test", "elsewhere"))
    assert status == 2
    assert err.startswith("raysd: s3://elsewhere/")
    assert err.count("\n") == 1


def test_an_interrupted_training_goes_on_from_its_checkpoint_on_s3(
    study: Path, s3_root: str, corpus: Callable[[int], Path], cache_dir: Path
) -> None:
    session = Session(load_study(study), Results(s3_root), corpus(2020), cache_dir)
    session.decode()
    trial = session.missing()[0]

    def interrupt(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(trial, session.place(), interrupt)
    assert session.results.checkpoints().keys() == {trial.training_key}
    assert session.results.done() == set()
    seen: list[Epoch] = []
    run_trial(trial, session.place(), seen.append)
    assert [epoch.epoch for epoch in seen] == [2]
    assert session.results.checkpoints() == {}


def test_storage_that_fails_is_no_fault_of_the_trial() -> None:
    assert failure_kind(StorageError("s3://bucket: no answer")) == "infrastructure"
