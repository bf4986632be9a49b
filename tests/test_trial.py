"""One trial: its record, what is reused, what becomes of failures, and that test labels serve the metrics alone."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raysd import trial as trial_module
from raysd.data.store import Data, Store, open_store
from raysd.detect.metrics import summarise
from raysd.errors import BadInput
from raysd.parallel import Scale
from raysd.recipe import NUMERICS, Recipe, recipe_key
from raysd.results.schema import Entries, Record
from raysd.results.store import Results
from raysd.settings import parse, with_changes
from raysd.study.design import Trial
from raysd.train import Epoch, NonFiniteLoss
from raysd.trial import Place, failure_kind, run_trial, train_and_embed, warm_spectra


@dataclass(frozen=True)
class Finished:
    trial: Trial
    place: Place
    record: Record

    @property
    def results(self) -> Results:
        return Results(self.place.results_root)


def trial_of(place: Place, recipe: Recipe, changes: dict[str, Any] | None = None, seed: int = 0) -> Trial:
    recipe = with_changes(recipe, changes or {}, "test")
    store = open_store(place.data_root, recipe.data, place.cache, place.skip_bad)
    return Trial("baseline", "baseline", recipe, seed, store.fingerprint)


def entries(found: Entries) -> list[dict[str, Any]]:
    """A nested column as it is read back."""
    assert isinstance(found, list)
    return found


def never(*_: object) -> Any:
    pytest.fail("trained")


@pytest.fixture
def place(corpus: Callable[[int], Path], cache_dir: Path, tmp_path: Path) -> Place:
    return Place(corpus(2020), cache_dir, tmp_path / "results")


@pytest.fixture(scope="module")
def finished(
    corpus: Callable[[int], Path], cache_dir: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """A trial on the corpus of 2020; to be read only."""
    place = Place(corpus(2020), cache_dir, tmp_path_factory.mktemp("finished"), "why", "cpu", command=("raysd", "run"))
    trial = trial_of(place, tiny_recipe)
    return Finished(trial, place, run_trial(trial, place))


@pytest.fixture(scope="module")
def finished_2022(
    corpus: Callable[[int], Path], cache_dir: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """One with domains, and with a class for each setting of the attributes."""
    place = Place(corpus(2022), cache_dir, tmp_path_factory.mktemp("finished"))
    changes = {"data.year": 2022, "loss.classes": "section_attributes", "scoring.name": "class_logit"}
    trial = trial_of(place, tiny_recipe, changes)
    return Finished(trial, place, run_trial(trial, place))


# --- the record -------------------------------------------------------------------------------------------------------


def test_the_record_says_what_was_run(finished: Finished) -> None:
    record, trial = finished.record, finished.trial
    assert (record.key, record.training_key, record.recipe_key) == (
        trial.key,
        trial.training_key,
        recipe_key(trial.recipe),
    )
    assert (record.state, record.failure_kind, record.traceback) == ("done", None, None)
    assert (record.variant, record.study, record.profile, record.seed) == ("baseline", "why", "cpu", 0)
    assert (record.year, record.data_fingerprint, record.numerics) == (2020, trial.fingerprint, NUMERICS)
    assert parse(Recipe, json.loads(record.recipe), "record") == trial.recipe
    assert record.started <= record.finished <= datetime.now(UTC)
    assert record.total_seconds == pytest.approx((record.finished - record.started).total_seconds(), abs=0.05)
    origin = json.loads(record.provenance)
    assert (origin["device"], origin["threads"], origin["precision"]) == ("cpu", 1, "fp32")
    assert (origin["command"], origin["skipped"], origin["train_sets"]) == (["raysd", "run"], [], "dev")


def test_the_record_holds_the_history(finished: Finished) -> None:
    record, history = finished.record, pd.DataFrame(finished.record.history)
    assert history["epoch"].tolist() == [1, 2]
    assert history["loss"].to_numpy() == pytest.approx((history["contrastive"] + history["classification"]).to_numpy())
    assert record.train_seconds == pytest.approx(history["seconds"].sum())
    assert record.train_seconds < record.total_seconds
    assert record.clips_per_second == pytest.approx(2 * 32 / record.train_seconds)


@pytest.mark.parametrize("year", [2020, 2022])
def test_every_clip_has_one_score(year: int, request: pytest.FixtureRequest) -> None:
    done: Finished = request.getfixturevalue("finished" if year == 2020 else "finished_2022")
    scores = pd.DataFrame(done.record.scores)
    clips = open_store(done.place.data_root, done.trial.recipe.data, done.place.cache).clips
    for column in ("path", "machine", "section", "part", "split", "label"):
        assert scores[column].tolist() == clips[column].tolist()
    score_M = scores["score"].to_numpy()
    assert np.isfinite(score_M).all()
    assert len(np.unique(score_M)) > 40  # of 56: two training clips may be each other's neighbour
    domains = scores.groupby("split")["domain"].agg(lambda column: sorted(set(column), key=str)).to_dict()
    known = ["source", "target"] if year == 2022 else [None]
    assert domains == {"train": known, "test": known}


@pytest.mark.parametrize("year", [2020, 2022])
def test_the_metrics_are_those_of_the_kept_test_scores(year: int, request: pytest.FixtureRequest) -> None:
    done: Finished = request.getfixturevalue("finished" if year == 2020 else "finished_2022")
    scores, metrics = pd.DataFrame(done.record.scores), pd.DataFrame(done.record.metrics)
    again = summarise(scores.query("split == 'test'"), year)
    pd.testing.assert_frame_equal(again, metrics, check_exact=True)
    whole = metrics.query("machine == 'all' and metric == 'official'")
    assert (whole["num_normal"].tolist(), whole["num_anomaly"].tolist()) == ([12], [12])
    assert ("auc_target" in set(metrics["metric"])) == (year == 2022)


def test_what_is_returned_is_what_was_written(finished: Finished) -> None:
    assert finished.results.read(finished.trial.key) == finished.record
    assert finished.results.done() == {finished.trial.key}
    assert len(finished.results.failures()) == 0


def test_the_scale_changes_the_arithmetic_and_not_the_trial(
    finished: Finished, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 stands in for the arithmetic of a GPU; whether this processor computes it fast is not asked here."""
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": True})
    record = run_trial(finished.trial, replace(place, scale=Scale(precision="bf16", micro_batch=4)))
    assert record.key == finished.record.key
    origin = json.loads(record.provenance)
    assert (origin["precision"], origin["scale"]["micro_batch"]) == ("bf16", 4)
    theirs, ours = (pd.DataFrame(found.scores)["score"] for found in (finished.record, record))
    assert not np.array_equal(theirs, ours)
    np.testing.assert_allclose(theirs, ours, rtol=0.2, atol=0.05)


def test_the_embeddings_are_kept_and_the_checkpoints_are_not(finished: Finished) -> None:
    table = finished.results.read_embeddings(finished.trial.training_key)
    assert table is not None
    assert table.schema.field("z").type == pa.list_(pa.float32(), 16)
    assert table["path"].to_pylist() == [clip["path"] for clip in entries(finished.record.scores)]
    assert max(table["class_score"].to_pylist()) <= 0  # log-probabilities
    training = json.loads(table.schema.metadata[b"training"])
    assert training["history"] == finished.record.history
    assert training["skipped"] == []
    assert training["trained_on"]["device"] == "cpu"
    assert training["trained_on"]["precision"] == "fp32"
    assert training["trained_on"]["scale"]["workers"] == 1
    assert training["trained_on"].items() <= json.loads(finished.record.provenance).items()
    assert [path.name for path in Path(finished.results.root).rglob("*.pt")] == []


def test_a_score_is_the_distance_to_the_training_clips_of_the_section(finished: Finished) -> None:
    """1-nearest neighbour by cosine, from the kept embeddings; a training clip is not its own neighbour."""
    table = finished.results.read_embeddings(finished.trial.training_key)
    assert table is not None
    clips = table.select(["machine", "section", "split"]).to_pylist()
    z_MD = np.stack(table["z"].to_numpy())
    unit_MD = z_MD / np.linalg.norm(z_MD, axis=1, keepdims=True)
    for i, (clip, scored) in enumerate(zip(clips, entries(finished.record.scores), strict=True)):
        like = {**clip, "split": "train"}
        nearest = max(unit_MD[i] @ unit_MD[j] for j, other in enumerate(clips) if other == like and j != i)
        assert scored["score"] == pytest.approx(1 - nearest, abs=1e-5)


def test_class_logit_is_minus_the_kept_log_probability(finished_2022: Finished) -> None:
    table = finished_2022.results.read_embeddings(finished_2022.trial.training_key)
    assert table is not None
    scores = pd.DataFrame(finished_2022.record.scores)["score"]
    np.testing.assert_array_equal(scores, -table["class_score"].to_numpy().astype(np.float64))


# --- what is there is not done again ----------------------------------------------------------------------------------


def test_a_finished_trial_is_read(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train", "embed", "scored"):
        monkeypatch.setattr(trial_module, name, never)
    assert run_trial(finished.trial, finished.place) == finished.record


def test_another_scoring_trains_nothing(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = replace(finished.place, results_root=tmp_path / "results")
    shutil.copytree(finished.results.root, place.results_root)
    monkeypatch.setattr(trial_module, "train_and_embed", never)
    trial = trial_of(place, finished.trial.recipe, {"scoring": {"name": "gaussian", "shrinkage": 0.5}})
    record = run_trial(trial, place)
    assert record.training_key == finished.record.training_key
    assert entries(record.history) == entries(finished.record.history)
    assert record.train_seconds == finished.record.train_seconds
    assert entries(record.scores) != entries(finished.record.scores)
    assert Results(place.results_root).done() == {trial.key, finished.trial.key}


def test_an_interrupted_trial_goes_on_to_the_same_record(finished: Finished, place: Place) -> None:
    def interrupt(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(finished.trial, place, interrupt)
    results = Results(place.results_root)
    assert results.checkpoint(finished.trial.training_key, "all").read() is not None
    assert (len(results.done()), len(results.trained()), len(results.failures())) == (0, 0, 0)
    seen: list[Epoch] = []
    record = run_trial(finished.trial, place, seen.append)
    assert [epoch.epoch for epoch in seen] == [2]
    assert [epoch["loss"] for epoch in entries(record.history)] == [
        epoch["loss"] for epoch in entries(finished.record.history)
    ]
    assert entries(record.scores) == entries(finished.record.scores)
    assert entries(record.metrics) == entries(finished.record.metrics)


def test_clips_are_decoded_and_their_spectra_computed_once_a_process(finished: Finished) -> None:
    place, data = finished.place, finished.trial.recipe.data
    store = trial_module.warm_store(place.data_root, data, place.cache, False)  # pyright: ignore[reportArgumentType]
    assert trial_module.warm_store(place.data_root, Data(), place.cache, False) is store  # pyright: ignore[reportArgumentType]
    features = finished.trial.recipe.features
    spectra = warm_spectra(store, features, "cpu")
    assert warm_spectra(store, features.model_copy(), "cpu") is spectra
    assert warm_spectra(store, features.model_copy(update={"num_bands": 16}), "cpu") is not spectra


def test_one_model_a_machine(
    finished: Finished, place: Place, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, real = [], trial_module.train

    def train(recipe: Any, spectra: Any, data: Any, *rest: Any) -> Any:
        trained.append(data)
        return real(recipe, spectra, data, *rest)

    monkeypatch.setattr(trial_module, "train", train)
    trial = trial_of(place, tiny_recipe, {"data.model_per": "machine"})
    record = run_trial(trial, place)
    clips = open_store(place.data_root, trial.recipe.data, place.cache).clips
    machines = [set(clips["machine"][data.row_N.numpy()]) for data in trained]
    assert machines == [{"fan"}, {"pump"}]
    assert [(len(data.row_N), data.num_classes) for data in trained] == [(16, 2), (16, 2)]
    assert all((clips["split"][data.row_N.numpy()] == "train").all() for data in trained)
    assert [clip["path"] for clip in entries(record.scores)] == clips["path"].tolist()
    assert [epoch["epoch"] for epoch in entries(record.history)] == [1, 2, 1, 2]
    assert entries(record.scores) != entries(finished.record.scores)


# --- test labels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("year", [2020, 2022])
def test_what_is_known_of_test_clips_never_reaches_the_embeddings(
    year: int, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With labels, domains and attributes of all test clips turned round, the embeddings are the same to the bit."""
    done: Finished = request.getfixturevalue("finished" if year == 2020 else "finished_2022")
    store = open_store(done.place.data_root, done.trial.recipe.data, done.place.cache)
    told, is_test = store.clips.copy(), store.clips["split"] == "test"
    told.loc[is_test, "label"] = 1 - told.loc[is_test, "label"]
    if year == 2022:
        told.loc[is_test, "domain"] = told.loc[is_test, "domain"].map({"source": "target", "target": "source"})
        told.loc[is_test, "attributes"] = told.loc[is_test, "attributes"].to_numpy()[::-1]
    turned = Store(store.root, store.data, Path(str(store.samples.filename)).parent)
    turned.clips = told
    monkeypatch.setattr(trial_module, "warm_store", lambda *_: turned)
    again = train_and_embed(done.trial, replace(done.place, results_root=tmp_path), lambda _: None)
    kept = done.results.read_embeddings(done.trial.training_key)
    assert kept is not None
    assert again["label"].to_pylist() != kept["label"].to_pylist()
    columns = ["path", "z", "class_score"]
    assert again.select(columns).to_pylist() == kept.select(columns).to_pylist()


def test_unknown_test_labels_leave_the_scores_and_take_the_metrics(finished: Finished, place: Place) -> None:
    """As with evaluation clips whose labels are not published."""
    embeddings = finished.results.read_embeddings(finished.trial.training_key)
    assert embeddings is not None
    hidden = pa.array([None if split == "test" else 0 for split in embeddings["split"].to_pylist()], pa.int8())
    at = embeddings.column_names.index("label")
    Results(place.results_root).write_embeddings(
        finished.trial.training_key, embeddings.set_column(at, "label", hidden)
    )
    record = run_trial(finished.trial, place)
    assert [clip["score"] for clip in entries(record.scores)] == [
        clip["score"] for clip in entries(finished.record.scores)
    ]
    assert entries(record.metrics) == []


# --- failures ---------------------------------------------------------------------------------------------------------


def failed_once(results: Results) -> dict[str, Any]:
    assert (results.done(), results.trained()) == (set(), set())
    (row,) = results.failures().to_dict("records")
    return row


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NonFiniteLoss("loss nan"), "non_finite"),
        (MemoryError("all gone"), "oom"),
        (torch.OutOfMemoryError("all gone"), "oom"),
        (ZeroDivisionError("a mistake"), "code"),
        (BadInput("a slip"), "code"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_failure_is_kept_and_tried_again(
    error: Exception, kind: str, finished: Finished, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    results = Results(place.results_root)
    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "embed", fail)
        with pytest.raises(type(error), match=str(error)):
            run_trial(finished.trial, place)
    row = failed_once(results)
    assert failure_kind(error) == row["failure_kind"] == kind
    assert (row["state"], row["key"], row["seed"]) == ("failed", finished.trial.key, 0)
    assert row["traceback"].startswith("Traceback")
    assert f"{type(error).__name__}: {error}" in row["traceback"]
    assert [len(row[name]) for name in ("history", "scores", "metrics")] == [0, 0, 0]

    seen: list[Epoch] = []
    record = run_trial(finished.trial, place, seen.append)
    assert seen == []  # both epochs were done before
    assert (record.state, record.scores) == ("done", finished.record.scores)
    assert len(results.failures()) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "in epoch 1, step 2"),
        ({"train.epochs": 1, "train.batch_size": 64}, "the embeddings after the last step"),
    ],
    ids=["within training", "at its last step"],
)
def test_what_explodes_gives_no_numbers(changes: dict[str, Any], said: str, place: Place, tiny_recipe: Recipe) -> None:
    trial = trial_of(place, tiny_recipe, {"train.learning_rate": 1e30, **changes})
    for attempt in (1, 2):
        with pytest.raises(NonFiniteLoss, match=said):
            run_trial(trial, place)
        results = Results(place.results_root)
        assert results.failures()["failure_kind"].tolist() == ["non_finite"] * attempt
        assert (results.done(), results.trained()) == (set(), set())


def test_other_clips_than_planned_are_refused(place: Place, tiny_recipe: Recipe) -> None:
    trial = replace(trial_of(place, tiny_recipe), fingerprint="0" * 20)
    with pytest.raises(BadInput, match="not the clips that the study was planned for"):
        run_trial(trial, place)
    assert failed_once(Results(place.results_root))["failure_kind"] == "code"


def test_skipped_clips_are_recorded(place: Place, tiny_recipe: Recipe, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    shutil.copytree(place.data_root, root)
    bad = "dev_data/fan/train/normal_id_00_00000003.wav"
    (root / bad).write_bytes(b"")
    place = replace(place, data_root=root, cache=tmp_path / "cache", skip_bad=True)
    trial = trial_of(place, tiny_recipe, {"encoder.name": "spectral_mean"})
    record = run_trial(trial, place)
    assert json.loads(record.provenance)["skipped"] == [bad]
    assert len(record.scores) == 55
    assert bad not in {clip["path"] for clip in entries(record.scores)}


def test_the_classical_floor_needs_no_training(place: Place, tiny_recipe: Recipe) -> None:
    changes = {"encoder.name": "spectral_mean", "scoring.name": "gaussian"}
    record = run_trial(trial_of(place, tiny_recipe, changes), place)
    assert (record.history, record.train_seconds, record.clips_per_second) == ([], 0.0, None)
    file = pq.read_schema(next((Path(place.results_root) / "embeddings").iterdir()))
    assert "class_score" not in file.names
    assert file.field("z").type == pa.list_(pa.float32(), 32)
