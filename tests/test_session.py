"""A study with its data and results at hand: plan, what is missing, tables, scoring anew."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from raysd import trial as trial_module
from raysd.data.store import open_store
from raysd.errors import BadInput
from raysd.paper.tables import StudyTable, study_tables
from raysd.recipe import Recipe
from raysd.results.store import Results
from raysd.session import Session
from raysd.settings import difference
from raysd.study.design import load_study
from raysd.trial import run_trial

STUDY = {
    "question": "Does it help to change high frequencies?",
    "baseline": "tiny.yaml",
    "factors": {"high_frequency": {"setting": "augment.high_frequency"}},
    "design": "leave_one_out",
    "seeds": [0, 1],
    "references": [],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Recipe) -> Path:
    """A folder of studies, with the tiny recipe as their baseline."""
    folder = tmp_path_factory.mktemp("studies")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe.model_dump(mode="json")), encoding="utf-8")
    own_data = {"design": "list", "variants": {"fan alone": {"data.machines": ["fan"]}}, "seeds": [0]}
    shared = {key: value for key, value in STUDY.items() if key != "factors"}
    for name, study in {"study": STUDY, "own_data": {**shared, **own_data}}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    return folder


@pytest.fixture
def session(folder: Path, corpus: Callable[[int], Path], cache_dir: Path, tmp_path: Path) -> Callable[..., Session]:
    """A session of the study with new results, unless some are given."""

    def make(
        changes: dict[str, Any] | None = None,
        study: str = "study",
        data: bool = True,
        results: Path = tmp_path / "results",
        cache: Path = cache_dir,
    ) -> Session:
        loaded = load_study(folder / f"{study}.yaml", changes)
        return Session(loaded, Results(results), corpus(2020) if data else None, cache)

    return make


@pytest.fixture(scope="module")
def ran(folder: Path, corpus: Callable[[int], Path], cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the study, run to its end; for reading, and for scoring anew in settings of one's own."""
    results = tmp_path_factory.mktemp("ran")
    session = Session(load_study(folder / "study.yaml"), Results(results), corpus(2020), cache_dir)
    session.decode()
    for trial in session.missing():
        run_trial(trial, session.place(("raysd", "run")))
    return results


def never(*_: object) -> Any:
    pytest.fail("trained, or read audio")


# --- plan and missing -------------------------------------------------------------------------------------------------


def test_before_its_clips_are_decoded_a_corpus_is_not_known(session: Callable[..., Session], tmp_path: Path) -> None:
    new = session(cache=tmp_path / "cache")
    assert new.fingerprint(new.study.baseline.recipe) is None
    plan = new.plan()
    assert (plan.data_known, plan.scorings, plan.done) == (False, 4, 0)
    seen: list[tuple[int, int]] = []
    new.decode(lambda done, of: seen.append((done, of)))
    assert seen[-1] == (56, 56)
    store = open_store(new.data_root or Path(), new.study.baseline.recipe.data, new.cache)
    assert new.fingerprint(new.study.baseline.recipe) == store.fingerprint
    assert new.plan().data_known


def test_everything_is_missing_at_first(session: Callable[..., Session]) -> None:
    new = session()
    new.decode()
    plan = new.plan()
    assert (plan.trainings, plan.scorings, plan.done, plan.unknown_trials) == (4, 4, 0, 4)
    missing = new.missing()
    assert [(trial.variant, trial.seed) for trial in missing] == [
        ("baseline", 0),
        ("without high_frequency", 0),
        ("baseline", 1),
        ("without high_frequency", 1),
    ]
    assert {trial.fingerprint for trial in missing} == {new.fingerprint(new.study.baseline.recipe)}
    assert difference(missing[0].recipe, missing[1].recipe) == {"augment.high_frequency": ("on", None)}
    assert not Path(new.results.root).exists()


def test_nothing_is_missing_at_last(session: Callable[..., Session], ran: Path) -> None:
    again = session(results=ran)
    assert again.missing() == []
    plan = again.plan()
    assert (plan.trainings, plan.scorings, plan.done) == (0, 0, 4)
    more = session({"seeds": [0, 1, 2]}, results=ran)
    assert [(trial.variant, trial.seed) for trial in more.missing()] == [
        ("baseline", 2),
        ("without high_frequency", 2),
    ]
    assert more.plan().unknown_trials == 0
    assert more.plan().seconds > 0
    scored_anew = session({"scoring.name": "gaussian"}, results=ran).plan()
    assert (scored_anew.trainings, scored_anew.reused_trainings, scored_anew.scorings) == (0, 4, 4)


def test_what_was_run_tells_how_long_and_how_well_the_rest_can_be_told_apart(
    session: Callable[..., Session], ran: Path, folder: Path
) -> None:
    plan = session({"seeds": [0, 1, 2]}, results=ran).plan()
    totals = [Results(ran).read(key).total_seconds for key in Results(ran).done()]
    assert min(totals) <= plan.seconds <= 4 * max(totals)
    assert plan.paid_seconds == pytest.approx(sum(totals), rel=0.01)
    assert plan.measured == "measured on 1 CPU thread"
    assert plan.spread is not None
    assert "differences of 1 variant over 2 seeds" in plan.spread.source
    (table,) = study_tables(load_study(folder / "study.yaml"), Results(ran))
    base, row = (row.cells["dev", "all", "official"].values for row in table.rows)
    change = [row[seed] - base[seed] for seed in (0, 1)]
    assert plan.spread.sd == pytest.approx(np.std(change, ddof=1))
    two_cores = session({"seeds": [0, 1, 2], "scale.cpus_per_worker": 2}, results=ran).plan()
    assert two_cores.unknown_trials == two_cores.scorings == 2
    assert "earlier trials ran on 1 CPU thread" in two_cores.measured


def test_a_variant_with_other_data_has_a_corpus_of_its_own(session: Callable[..., Session]) -> None:
    new = session(study="own_data")
    new.decode()
    baseline, alone = new.missing()
    assert baseline.fingerprint != alone.fingerprint
    for trial in (baseline, alone):
        store = open_store(new.data_root or Path(), trial.recipe.data, new.cache)
        assert trial.fingerprint == store.fingerprint
    assert set(store.clips["machine"]) == {"fan"}


def test_the_place_says_where_and_for_what(session: Callable[..., Session]) -> None:
    new = session()
    place = new.place(("raysd", "run", "study"))
    assert (place.data_root, place.cache, place.results_root) == (new.data_root, new.cache, new.results.root)
    assert (place.study, place.profile, place.skip_bad, place.device) == ("study", None, False, "cpu")
    assert place.command == ("raysd", "run", "study")


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [True, False])
def test_the_table_holds_the_means_over_seeds(session: Callable[..., Session], ran: Path, data: bool) -> None:
    (table,) = session(results=ran, data=data).tables()
    assert isinstance(table, StudyTable)
    assert [(row.variant, row.found, row.wanted) for row in table.rows] == [
        ("baseline", 2, 2),
        ("without high_frequency", 2, 2),
    ]
    for row in table.rows:
        records = [Results(ran).read(key) for key in Results(ran).done()]
        values = [
            metric["value"]
            for record in records
            for metric in record.metrics
            if record.variant == row.variant and metric["metric"] == "official" and metric["machine"] == "all"
        ]
        assert row.cells["dev", "all", "official"].mean == pytest.approx(np.mean(values))


def test_without_results_there_is_no_table(session: Callable[..., Session]) -> None:
    with pytest.raises(BadInput, match="no finished trial of study study"):
        session().tables()


# --- scoring anew -----------------------------------------------------------------------------------------------------


def test_scoring_anew_needs_the_embeddings_alone(
    session: Callable[..., Session], ran: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("train", "train_and_embed", "warm_store"):
        monkeypatch.setattr(trial_module, name, never)
    changes = {"scoring": {"name": "gaussian", "shrinkage": 0.5}, "seeds": [0, 1, 2]}
    new = session(changes, data=False, results=ran, cache=tmp_path / "none")
    before = Results(ran).done()
    written, untrained = new.rescore()
    assert written == 4
    assert [(trial.variant, trial.seed) for trial in untrained] == [("baseline", 2), ("without high_frequency", 2)]
    assert new.rescore()[0] == 0

    found = [Results(ran).read(key) for key in Results(ran).done() - before]
    assert {json.loads(record.recipe)["scoring"]["name"] for record in found} == {"gaussian"}
    assert {record.training_key for record in found} <= Results(ran).trained()
    (table,) = new.tables()
    assert isinstance(table, StudyTable)
    assert [(row.found, row.wanted) for row in table.rows] == [(2, 3), (2, 3)]


def test_scored_anew_is_scored_as_run(session: Callable[..., Session], ran: Path, tmp_path: Path) -> None:
    """The records of `raysd rescore` and of `raysd run` hold the same numbers."""
    anew = session({"scoring.k": 2, "seeds": [0]}, results=ran, data=False)
    assert anew.rescore() == (2, [])
    run = session({"scoring.k": 2, "seeds": [0]}, results=tmp_path / "run")
    for trial in run.missing():
        record, other = run_trial(trial, run.place()), Results(ran).read(trial.key)
        assert (record.scores, record.metrics) == (other.scores, other.metrics)
        assert (record.variant, record.seed, record.training_key) == (other.variant, other.seed, other.training_key)


def test_scoring_anew_takes_each_variants_own_corpus(session: Callable[..., Session]) -> None:
    new = session({"encoder.name": "spectral_mean"}, study="own_data")
    new.decode()
    for trial in new.missing():
        run_trial(trial, new.place())
    changes = {"encoder.name": "spectral_mean", "scoring.name": "gaussian"}
    assert session(changes, study="own_data").rescore() == (2, [])
    changes = {"encoder.name": "spectral_mean", "scoring.k": 3}
    assert session(changes, study="own_data", data=False).rescore() == (2, [])


def test_scoring_anew_on_data_that_is_not_decoded_is_refused(
    session: Callable[..., Session], ran: Path, tmp_path: Path
) -> None:
    new = session({"scoring.k": 3}, results=ran, cache=tmp_path / "cache")
    with pytest.raises(BadInput, match=r"its clips are not decoded in .*leave --data-root out"):
        new.rescore()


def test_scoring_anew_without_any_results_does_nothing(session: Callable[..., Session]) -> None:
    assert session(data=False).rescore() == (0, [])
