"""The command line, as a user types it. Running studies under Ray is tested in scale/test_tune.py."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from raysd.recipe import Recipe
from raysd.results.store import Results
from raysd.session import Session
from raysd.study.design import load_study
from raysd.trial import run_trial

STUDY = {
    "question": "Does it help to change high frequencies?",
    "baseline": "tiny.yaml",
    "factors": {"high_frequency": {"setting": "augment.high_frequency"}},
    "design": "leave_one_out",
    "seeds": [0, 1],
    "references": ["recipes/classical.yaml"],
}


@pytest.fixture(scope="module")
def study(
    tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Recipe, corpus: Callable[[int], Path], cache_dir: Path
) -> Path:
    """A study file with its results beside it, in `results`: all but the last trial."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe.model_dump(mode="json")), encoding="utf-8")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    session = Session(load_study(path), Results(folder / "results"), corpus(2020), cache_dir)
    session.decode()
    for trial in session.missing()[:-1]:
        run_trial(trial, session.place())
    return path


Run = Callable[..., tuple[int, str, str]]


def options(study: Path, corpus: Callable[[int], Path], cache_dir: Path) -> list[object]:
    return [study, "--results", study.parent / "results", "--data-root", corpus(2020), "--cache", cache_dir]


def test_help_of_every_command(raysd: Run) -> None:
    status, out, _ = raysd("--help")
    assert status == 0
    for command in (
        "quickstart",
        "plan",
        "run",
        "table",
        "rescore",
        "evaluate",
        "export-dcase",
        "data",
        "submit",
        "status",
        "logs",
        "stop",
        "doctor",
        "explain",
        "schema",
        "report",
        "promote",
        "studies",
        "show",
        "compare",
        "gc",
        "compact",
    ):
        assert command in out
        status, out_of_it, _ = raysd(command, "--help")
        assert status == 0
        assert "Usage" in out_of_it


def test_plan(raysd: Run, study: Path, corpus: Callable[[int], Path], cache_dir: Path) -> None:
    status, out, _ = raysd("plan", *options(study, corpus, cache_dir))
    assert status == 0
    assert "without high_frequency" in out
    assert "1 of 5 trials to do: 1 training, 1 scoring; 4 in the results" in out
    assert "p = 0.5" in out
    assert "disk: about" in out
    fresh = raysd("plan", study, "--results", study.parent / "none")[1]
    assert "5 of 5 trials to do" in fresh
    assert not (study.parent / "none").exists()


def test_table_in_every_format(raysd: Run, study: Path) -> None:
    results = ("--results", study.parent / "results")
    status, out, _ = raysd("table", study, *results)
    assert status == 0
    assert "1/2" in out  # the trial that is missing
    markdown = raysd("table", study, *results, "--format", "markdown")[1]
    assert "| baseline | 2/2 |" in markdown
    assert "| without high_frequency | 1/2 |" in markdown
    rows = list(csv.DictReader(io.StringIO(raysd("table", study, *results, "--format", "csv")[1])))
    kept = Results(study.parent / "results")
    (cell,) = [r for r in rows if (r["variant"], r["machine"], r["metric"]) == ("classical", "all", "official")]
    metrics = pd.DataFrame(kept.read(cell["keys"]).metrics)
    (official,) = metrics.query("machine == 'all' and metric == 'official'")["value"]
    assert float(cell["mean"]) == official


def test_rescore_needs_no_audio(raysd: Run, study: Path) -> None:
    words = ("rescore", study, "--results", study.parent / "results", "--set", "scoring.name=gaussian")
    status, out, err = raysd(*words)
    assert status == 0
    assert "3 trials scored; 1 have no embeddings yet" in err
    assert "official score" in out
    assert "0 trials scored" in raysd(*words)[2]


def test_exported_scores_evaluate_to_the_trials_own_metrics(raysd: Run, study: Path, tmp_path: Path) -> None:
    kept = Results(study.parent / "results")
    key = sorted(kept.done())[0]
    status, _, err = raysd("export-dcase", key[:6], tmp_path / "files", "--results", kept.root)
    assert status == 0
    assert key in err
    assert list((tmp_path / "files").glob("decision_result_*.csv"))
    status, out, _ = raysd("evaluate", "--year", 2020, tmp_path / "files", "--json")
    assert status == 0
    metrics = pd.DataFrame(kept.read(key).metrics)
    (official,) = metrics.query("machine == 'all' and metric == 'official'")["value"]
    assert json.loads(out)["official_score"] == pytest.approx(official, abs=1e-12)
    assert "AUC" in raysd("evaluate", "--year", 2020, tmp_path / "files")[1]


def test_of_two_parts_one_is_exported(raysd: Run, study: Path, tmp_path: Path) -> None:
    kept, both = Results(study.parent / "results"), Results(tmp_path / "both")
    record = kept.read(sorted(kept.done())[0])
    sections = sorted({clip["section"] for clip in record.scores})
    scores = [{**clip, "part": "dev" if clip["section"] == sections[0] else "eval"} for clip in record.scores]
    both.write(dataclasses.replace(record, scores=scores))
    words = ("export-dcase", record.key, tmp_path / "files", "--results", both.root)
    status, _, err = raysd(*words)
    assert status == 2
    assert "give --part eval" in err
    assert raysd(*words, "--part", "eval")[0] == 0
    names = [path.name for path in (tmp_path / "files").glob("anomaly_score_*")]
    assert names
    assert not [name for name in names if name.endswith(f"_id_{sections[0]}.csv")]


def test_evaluate_of_a_real_submission(raysd: Run, shared_dir: Path) -> None:
    official = shared_dir / "official" / "dcase2022_eval"
    status, out, _ = raysd("evaluate", official / "submission_1", "--year", 2022, "--truth", official, "--json")
    assert status == 0
    assert json.loads(out)["official_score"] == pytest.approx(0.6639461929735759, abs=1e-12)


def test_data_synth(raysd: Run, tmp_path: Path) -> None:
    small = ("--machines", 1, "--sections", 1, "--train-clips", 3, "--test-clips", 4, "--clip-seconds", 0.5)
    status, _, err = raysd("data", "synth", tmp_path / "made", "--year", 2022, *small)
    assert status == 0
    assert "7 clips" in err
    assert len(list((tmp_path / "made").rglob("section_00_*.wav"))) == 7


def test_a_users_mistake_is_one_line_and_status_2(
    raysd: Run, study: Path, corpus: Callable[[int], Path], cache_dir: Path, tmp_path: Path
) -> None:
    known = options(study, corpus, cache_dir)
    results = ("--results", study.parent / "results")
    mistakes = {
        ("plan", "augmentatoin"): "did you mean 'augmentation'",
        ("plan", study, "--set", "train.epoch=3"): "did you mean 'epochs'",
        ("plan", study, "--set", "train.epochs"): "--set train.epochs: expected SETTING=VALUE",
        ("plan", study, "--set", "train.epochs=many"): "train.epochs",
        ("plan", study, "--seeds", "one"): "--seeds one",
        ("plan", study, "--profile", "gpu"): "no profile 'gpu'",
        ("table", study, "--results", tmp_path): "no finished trial of study study",
        ("run", study, "--data-root", tmp_path / "nowhere"): "nowhere",
        ("run", *known, "--set", "data.machines=[pumpe]"): "pumpe",
        ("export-dcase", "zzz", tmp_path / "files", *results): "zzz",
        ("evaluate", tmp_path, "--year", "2020"): str(tmp_path),
        ("data", "synth", study.parent): "is there already",
        ("data", "synth", tmp_path / "new", "--year", "2019"): "2019",
    }
    for words, said in mistakes.items():
        status, out, err = raysd(*words)
        assert status == 2, words
        assert out == ""
        assert err.startswith("raysd: ")
        assert err.count("\n") == 1
        assert said in err
    assert not (tmp_path / "files").exists()
    assert not (tmp_path / "new").exists()


def test_in_a_ray_job_results_that_would_be_lost_with_it_are_refused(
    raysd: Run, study: Path, corpus: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    for words in (("--results", "here"), ()):
        status, _, err = raysd("run", study, "--data-root", corpus(2020), *words)
        assert status == 2
        assert "in a Ray job it would be lost" in err


def test_status_of_a_study(raysd: Run, study: Path, corpus: Callable[[int], Path], cache_dir: Path) -> None:
    status, out, _ = raysd("status", *options(study, corpus, cache_dir))
    assert status == 0
    assert "4 of 5 trials done, 0 begun, 0 failed, 1 missing" in out
    assert "4 of 5 trials done" in raysd("status", study, "--results", study.parent / "results")[1]


def test_bad_clips_are_all_listed_and_can_be_skipped(raysd: Run, study: Path, tmp_path: Path) -> None:
    raysd("data", "synth", tmp_path / "data", "--machines", 1, "--sections", 1, "--clip-seconds", 0.5)
    bad = sorted((tmp_path / "data").rglob("*/train/*.wav"))[:7]
    for path in bad:
        path.write_bytes(path.read_bytes()[:100])
    words = [
        "plan",
        study,
        "--data-root",
        tmp_path / "data",
        "--cache",
        tmp_path / "cache",
        "--results",
        tmp_path / "r",
    ]
    status, _, err = raysd(*words)
    assert status == 2
    assert err.count("\n") == len(bad) + 1
    assert all(path.name in err for path in bad)
    assert "--skip-bad" in err.splitlines()[-1]
    assert raysd(*words, "--skip-bad")[0] == 0
