"""The table of a study, on records whose numbers can be checked by hand."""

import csv
import io
import json
import re
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console

from raysd.detect.metrics import summarise
from raysd.errors import BadInput
from raysd.paper.tables import StudyTable, study_tables
from raysd.recipe import NUMERICS, recipe_key
from raysd.results.store import Record, Results
from raysd.study.design import LoadedStudy, Trial, load_study, trials_of

STUDY = {
    "question": "does a|b help?",
    "baseline": "base.yaml",
    "factors": {"crop": {"setting": "augment.random_resize_crop"}, "mixup": {"setting": "augment.log_mixup_exp"}},
    "design": "leave_one_out",
    "seeds": [0, 1, 2],
    "references": ["floor.yaml"],
}
BASE = {"augment": {"random_resize_crop": {}, "log_mixup_exp": {}}, "profiles": {"cpu": {"train": {"epochs": 2}}}}
FLOOR = {"encoder": {"name": "spectral_mean"}, "scoring": {"name": "gaussian"}}
NOW = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def study(tmp_path: Path) -> LoadedStudy:
    return load(tmp_path)


def load(folder: Path, changes: dict[str, Any] | None = None, **options: Any) -> LoadedStudy:
    for name, content in (("base", BASE), ("floor", FLOOR), ("s", STUDY | (changes or {}))):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load_study(folder / "s.yaml", **options)


def clips(ranks: dict[str, float], year: int = 2020, part: str = "dev") -> pd.DataFrame:
    """Ten normals and one anomaly a section (and domain); the anomaly beats the given share of the normals."""
    rows = []
    domains = [None] if year == 2020 else ["source", "target"]
    for machine, share in ranks.items():
        for section in ("00", "02"):
            for domain in domains:
                shared = {"machine": machine, "section": section, "part": part, "split": "test", "domain": domain}
                rows += [shared | {"path": f"n{i}", "label": 0, "score": float(i)} for i in range(10)]
                rows.append(shared | {"path": "a", "label": 1, "score": 10 * share - 0.5})
    return pd.DataFrame(rows)


@lru_cache
def measured(ranks: tuple[tuple[str, float], ...], year: int, part: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    scores = clips(dict(ranks), year, part)
    return scores, summarise(scores, year)


def record(trial: Trial, ranks: dict[str, float], part: str = "dev", **changes: Any) -> Record:
    scores, metrics = measured(tuple(ranks.items()), trial.recipe.data.year, part)
    values: dict[str, Any] = {
        "key": trial.key,
        "training_key": trial.training_key,
        "recipe_key": recipe_key(trial.recipe),
        "numerics": NUMERICS,
        "variant": "another name",
        "study": "another study",
        "profile": None,
        "seed": trial.seed,
        "year": trial.recipe.data.year,
        "data_fingerprint": trial.fingerprint,
        "recipe": trial.recipe.model_dump_json(),
        "started": NOW,
        "finished": NOW,
        "train_seconds": 1.0,
        "total_seconds": 2.0,
        "provenance": json.dumps({"skipped": []}),
        "scores": scores,
        "metrics": metrics,
    }
    return Record(**values | changes)


SHARES = {
    "baseline": [0.5, 0.6, 0.7],
    "without crop": [0.6, 0.8, 0.7],
    "without mixup": [0.4, None, 0.9],
    "floor": [1.0],
}


def fill(results: Results, study: LoadedStudy, fingerprint: str = "d0") -> None:
    for trial in trials_of(study, fingerprint):
        share = SHARES[trial.variant][trial.seed]
        if share is not None:
            results.write(record(trial, {"fan": share, "valve": 1.0}))


def one_table(study: LoadedStudy, results: Results, **options: Any) -> StudyTable:
    (table,) = study_tables(study, results, **options)
    return table


def plain(cells: list[str]) -> list[str]:
    """Without marks."""
    return [re.sub(r"\*\*|</?u>| ≈", "", cell) for cell in cells]


def markdown_rows(text: str, title: str) -> dict[str, list[str]]:
    section = text.split(f"### {title}\n")[1].split("###")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows if len(row) > 2}


def test_means_spreads_counts_and_paired_differences(study: LoadedStudy, tmp_path: Path) -> None:
    results = Results(tmp_path / "r")
    fill(results, study)
    table = one_table(study, results)
    auc = markdown_rows(table.to_markdown(), "AUC, dev")
    # AUC of the fan is the share; the valve's is 1; "all" is their mean
    assert auc["variant"] == ["seeds", "fan", "valve", "all"]
    assert auc["baseline"] == ["3/3", "<u>60.00 ± 10.00</u> ≈", "**100.00 ± 0.00**", "<u>80.00 ± 5.00</u> ≈"]
    assert auc["without crop"] == ["3/3", "**70.00 ± 10.00**", "<u>100.00 ± 0.00</u> ≈", "**85.00 ± 5.00**"]
    # it lacks a seed, and is not set beside rows that do not
    assert auc["without mixup"] == ["2/3", "65.00 ± 35.36", "100.00 ± 0.00", "82.50 ± 17.68"]
    assert auc["floor (reference)"] == ["1/1", "100.00", "100.00", "100.00"]
    # seeds 0 and 2: mean of -0.1 and +0.2 on the fan, half of it on all, whatever the baseline's seed 1
    differences = markdown_rows(
        table.to_markdown(), "Difference to the baseline over all machines in the other metrics, dev"
    )
    assert differences["variant"] == ["n", "AUC", "pAUC"]
    assert [differences[name][0] for name in ("without crop", "without mixup")] == ["3", "2"]
    assert [differences[name][1].split(" [")[0] for name in ("without crop", "without mixup")] == ["+5.00", "+2.50"]
    assert set(differences) == {"variant", "---", "without crop", "without mixup"}


def test_differences_have_an_interval_and_tests_of_one_family(study: LoadedStudy, tmp_path: Path) -> None:
    results = Results(tmp_path / "r")
    fill(results, study)
    table = one_table(study, results)
    crop, mixup = table.variants
    one = table.comparison(crop, "dev", "fan", "auc")
    assert one is not None
    assert one.difference == pytest.approx(0.1)  # of 0.1, 0.2 and 0: four of eight patterns of signs are as far out
    assert (one.n, one.family, one.p, one.p_holm) == (3, 2, 0.5, 1.0)
    assert one.low < 0.1 < one.high
    assert table.comparison(mixup, "dev", "fan", "auc").n == 2  # pyright: ignore[reportOptionalMemberAccess]
    assert table.comparison(table.rows[0], "dev", "fan", "auc") is None
    assert table.comparison(table.rows[-1], "dev", "fan", "auc") is None
    best, tied = table.tied("dev", "fan", "auc")
    assert best is crop
    assert tied == (table.rows[0],)
    rows = markdown_rows(
        table.to_markdown(), "Difference to the baseline in official score, dev: p, and in brackets after Holm"
    )
    assert rows["without crop"][1] == "0.500 (1.000)"


def test_fewer_than_two_seeds_are_not_tested(tmp_path: Path) -> None:
    study, results = load(tmp_path, {"seeds": [0]}), Results(tmp_path / "r")
    for trial in trials_of(study, "d0"):
        results.write(record(trial, {"fan": 0.5}))
    table = one_table(study, results)
    assert "fewer than 2 seeds: no interval and no test" in "".join(table.caption())
    assert markdown_rows(table.to_markdown(), "AUC, dev")["without crop"][2:4] == ["+0.00", "no test"]
    results = Results(tmp_path / "two")
    for trial in trials_of(load(tmp_path, {"seeds": [0, 1]}), "d0"):
        if trial.variant == "baseline" or trial.seed == 0 or trial.variant == "without crop":
            results.write(record(trial, {"fan": 0.5}))
    table = one_table(load(tmp_path, {"seeds": [0, 1]}), results)
    assert markdown_rows(table.to_markdown(), "AUC, dev")["without mixup"][:4] == ["1/2", "50.00", "+0.00", "no test"]
    assert "no test: fewer than 2 seeds that the baseline has too" in table.caption()
    assert "rows that lack seeds are not marked, unless all lack as many" in table.caption()


def test_a_factorial_design_has_grids_of_its_effects(tmp_path: Path) -> None:
    factors = {
        "k": {"setting": "scoring.k", "levels": [1, 2]},
        "domains": {"setting": "scoring.domains", "levels": ["pooled", "normalised"]},
    }
    study = load(tmp_path, {"factors": factors, "design": "factorial", "references": []})
    results = Results(tmp_path / "r")
    shares = {
        "baseline": 0.2,
        "k=1, domains=normalised": 0.3,
        "k=2, domains=pooled": 0.4,
        "k=2, domains=normalised": 0.9,
    }
    for trial in trials_of(study, "d0"):
        results.write(record(trial, {"fan": shares[trial.variant]}))
    table = one_table(study, results)
    text = table.to_markdown()
    main = markdown_rows(text, "Main effects against domains=pooled, k=1: official score, dev")
    both = markdown_rows(text, "Two-way interactions against domains=pooled, k=1: official score, dev")
    assert list(main) == ["factor", "---", "k=2", "domains=normalised"]
    assert both["k=2 x domains=normalised"][:2] == ["1", "3/3"]
    effects = {effect.contrast.label: effect.comparison.difference for effect in table.effects("dev", "fan", "auc")}
    # (0.4 - 0.2 + 0.9 - 0.3) / 2, (0.3 - 0.2 + 0.9 - 0.4) / 2, (0.9 - 0.3) - (0.4 - 0.2)
    assert effects == pytest.approx({"k=2": 0.4, "domains=normalised": 0.3, "k=2 x domains=normalised": 0.4})
    lines = {(line["variant"], line["metric"]): line for line in csv.DictReader(io.StringIO(table.to_csv()))}
    assert lines["k=2", "auc"]["role"] == "main effect"
    assert float(lines["k=2", "auc"]["difference"]) == pytest.approx(0.4)
    assert lines["k=2 x domains=normalised", "auc"]["role"] == "interaction"
    assert r"\raysdcell{s/effect k=2/dev/fan/auc/difference}{+40.00}" in table.to_macros()


def test_the_comparison_metric_comes_first_with_differences_by_machine(study: LoadedStudy, tmp_path: Path) -> None:
    results = Results(tmp_path / "r")
    fill(results, study)
    text = one_table(study, results).to_markdown()
    titles = [line.removeprefix("### ") for line in text.splitlines() if line.startswith("### ")]
    assert titles == [
        "official score, dev",
        "AUC, dev",
        "pAUC, dev",
        "Difference to the baseline in official score, dev",
        "Difference to the baseline in official score, dev: p, and in brackets after Holm",
        "Difference to the baseline over all machines in the other metrics, dev",
        "Difference to the baseline over all machines in the other metrics, dev: p, and in brackets after Holm",
    ]
    other = load(tmp_path, {"metric": "auc"})
    assert one_table(other, results).metrics == ("auc", "pauc", "official")
    rows = markdown_rows(one_table(other, results).to_markdown(), "Difference to the baseline in AUC, dev")
    assert rows["variant"] == ["n", "fan", "valve", "all"]
    assert [cell.split(" [")[0] for cell in rows["without crop"]] == ["3", "+10.00", "+0.00", "+5.00"]
    assert set(rows) == {"variant", "---", "without crop", "without mixup"}


def test_references_stand_below_a_rule(study: LoadedStudy, tmp_path: Path) -> None:
    results = Results(tmp_path / "r")
    fill(results, study)
    lines = one_table(study, results).to_markdown().splitlines()
    rule = next(i for i, line in enumerate(lines) if "*references, not compared*" in line)
    assert lines[rule - 1].startswith("| without mixup")
    assert lines[rule + 1].startswith("| floor (reference)")


def test_the_caption_says_what_holds_for_all(tmp_path: Path) -> None:
    changes = {"changes": {"data": {"additional": True}, "augment.random_resize_crop": None}}
    study = load(tmp_path, changes, profile="cpu")
    results = Results(tmp_path / "r")
    for trial in trials_of(study, "d0"):
        skipped = json.dumps({"skipped": ["bad.wav"]})
        results.write(record(trial, {"fan": 0.5, "valve": 0.5}, provenance=skipped))
    caption = "\n".join(one_table(study, results).caption())
    assert "DCASE 2020, dev: fan, valve (fingerprint d0)" in caption
    assert "code: not known" in caption
    assert "n = 3 seeds (0, 1, 2)" in caption
    assert (
        "exact two-sided sign-flip test of the paired differences, with 3 seeds not below 0.25; Holm over 1 va"
        in caption
    )
    assert "profile: cpu" in caption
    assert "trained on: dev + additional" in caption
    assert "checkpoint: last epoch" in caption
    assert "1 clips could not be read" in caption
    assert "'without crop' is the same recipe as 'baseline'" in caption
    assert "profile: none; trained on: dev;" in "\n".join(_empty(tmp_path).caption())


def _empty(folder: Path) -> StudyTable:
    study, results = load(folder), Results(folder / "r2")
    fill(results, study)
    return one_table(study, results)


def test_csv_has_every_cell_in_full_precision_with_its_trials(study: LoadedStudy, tmp_path: Path) -> None:
    results = Results(tmp_path / "r")
    fill(results, study)
    rows = list(csv.DictReader(io.StringIO(one_table(study, results).to_csv())))
    assert len(rows) == 4 * 3 * 3  # variants x (fan, valve, all) x (official, auc, pauc)
    cells = {(row["variant"], row["machine"], row["metric"]): row for row in rows}
    cell = cells["without mixup", "fan", "auc"]
    assert float(cell["mean"]) == np.mean([0.4, 0.9])
    assert float(cell["sd"]) == np.std([0.4, 0.9], ddof=1)
    assert (cell["n"], cell["wanted"], cell["difference_n"]) == ("2", "3", "2")
    assert float(cell["difference"]) == pytest.approx(0.05, abs=1e-12)
    trials = [trial for trial in trials_of(study, "d0") if trial.variant == "without mixup"]
    assert cell["keys"].split() == [trials[0].key, trials[2].key]
    assert cells["floor", "fan", "auc"]["sd"] == ""
    assert cells["baseline", "fan", "auc"]["difference"] == ""
    assert cell["role"] == "variant"


def test_everything_can_be_recomputed_from_the_scores(study: LoadedStudy, tmp_path: Path) -> None:
    results = Results(tmp_path / "r")
    fill(results, study)
    rows = list(csv.DictReader(io.StringIO(one_table(study, results).to_csv())))
    again_of = {key: summarise(pd.DataFrame(results.read(key).scores), 2020) for key in results.done()}
    for row in rows:
        values = []
        for again in map(again_of.__getitem__, row["keys"].split()):
            at = (again["machine"] == row["machine"]) & (again["metric"] == row["metric"])
            values += again.loc[at & (again["section"] == "arithmetic_mean"), "value"].tolist()
        assert float(row["mean"]) == pytest.approx(np.mean(values), abs=1e-15)
        assert len(values) == int(row["n"])


def test_years_with_domains_have_their_own_columns_and_mean(tmp_path: Path) -> None:
    study = load(tmp_path, {"changes": {"data.year": 2022}, "factors": {"crop": STUDY["factors"]["crop"]}})
    results = Results(tmp_path / "r")
    for trial in trials_of(study, "d0"):
        metrics = [measured((("fan", 0.5), ("valve", 1.0)), 2022, "dev")[1], measured((("fan", 0.2),), 2022, "eval")[1]]
        results.write(record(trial, {"fan": 0.2}, metrics=pd.concat(metrics)))
    table = one_table(study, results)
    assert table.metrics == ("official", "auc_source", "auc_target", "pauc")
    assert table.parts == ("dev", "eval")
    rows = markdown_rows(table.to_markdown(), "AUC source, dev")
    assert plain(rows["baseline"])[1:4] == ["50.00 ± 0.00", "100.00 ± 0.00", "66.67 ± 0.00"]  # harmonic
    rows = markdown_rows(table.to_markdown(), "AUC source, eval")
    assert plain(rows["baseline"])[1:4] == ["20.00 ± 0.00", "-", "20.00 ± 0.00"]


def test_each_corpus_has_its_own_table(study: LoadedStudy, tmp_path: Path) -> None:
    results = Results(tmp_path / "r")
    fill(results, study, "d1")
    fill(results, study, "d0")
    assert [table.fingerprint for table in study_tables(study, results)] == ["d0", "d1"]
    assert one_table(study, results, fingerprint="d1").fingerprint == "d1"
    with pytest.raises(BadInput, match="no finished trial of study s on the data d2; first: raysd run s"):
        study_tables(study, results, "d2")
    with pytest.raises(BadInput, match="no finished trial of study s;"):
        study_tables(study, Results(tmp_path / "empty"))


def test_only_the_studys_own_trials_count(study: LoadedStudy, tmp_path: Path) -> None:
    results = Results(tmp_path / "r")
    fill(results, study)
    baseline = trials_of(study, "d0")[0]
    results.write(record(baseline, {"fan": 0.0}, key="of another seed", seed=9))
    results.write(record(baseline, {"fan": 0.0}, key="of another recipe", recipe_key="r9"))
    before = one_table(study, results).to_csv()
    results.write(record(baseline, {"fan": 0.0}, key="of another revision", numerics=NUMERICS + 1))
    table = one_table(study, results)
    assert table.to_csv() == before
    assert table.rows[0].found == 3
    assert "left out: 1 trials of another revision of the numerics" in table.notes


def test_variants_of_the_data_stand_in_one_table(tmp_path: Path) -> None:
    channels = {"channel": {"setting": "data.channel", "levels": [0, 1]}}
    study = load(tmp_path, {"factors": channels, "design": "one_at_a_time", "references": []})
    results = Results(tmp_path / "r")
    for trial in trials_of(study, lambda recipe: f"d{recipe.data.channel}"):
        results.write(record(trial, {"fan": 0.5, "valve": 0.5}))
    table = one_table(study, results)
    assert table.fingerprint == "d0"
    assert [row.found for row in table.rows] == [3, 3]
    for trial in trials_of(study, "d7")[1:2]:
        results.write(record(trial, {"fan": 0.5}))
    table = one_table(study, results)
    assert [row.found for row in table.rows] == [3, 0]
    assert any("'channel=1' left out" in note for note in table.notes)


def test_one_machine_needs_no_mean_over_machines(study: LoadedStudy, tmp_path: Path) -> None:
    results = Results(tmp_path / "r")
    for trial in trials_of(study, "d0"):
        results.write(record(trial, {"fan": 0.5}))
    table = one_table(study, results)
    assert table.machines == ("fan",)
    text = table.to_markdown()
    assert "Difference to the baseline in" not in text
    assert markdown_rows(text, "AUC, dev")["variant"] == ["seeds", "fan", "difference", "p", "p (Holm)"]
    row = markdown_rows(text, "AUC, dev")["without crop"]
    assert row == ["3/3", "<u>50.00 ± 0.00</u> ≈", "+0.00 [0.00, 0.00]", "1.000", "1.000"]


def test_a_variant_without_trials_shows_as_missing(study: LoadedStudy, tmp_path: Path) -> None:
    results = Results(tmp_path / "r")
    results.write(record(trials_of(study, "d0")[0], {"fan": 0.5, "valve": 0.5}))
    rows = markdown_rows(one_table(study, results).to_markdown(), "AUC, dev")
    assert rows["baseline"][:2] == ["1/3", "50.00"]
    assert rows["without crop"][:4] == ["0/3", "-", "-", "-"]


def test_a_machine_missing_in_some_trials_says_so_in_its_cell(study: LoadedStudy, tmp_path: Path) -> None:
    results = Results(tmp_path / "r")
    for trial in trials_of(study, "d0"):
        machines = {"fan": 0.5} if trial.seed == 1 else {"fan": 0.5, "valve": 1.0}
        results.write(record(trial, machines))
    rows = markdown_rows(one_table(study, results).to_markdown(), "AUC, dev")
    assert plain(rows["baseline"])[:3] == ["3/3", "50.00 ± 0.00", "100.00 ± 0.00 (2/3)"]


def test_the_terminal_shows_the_same_numbers(study: LoadedStudy, tmp_path: Path) -> None:
    results = Results(tmp_path / "r")
    fill(results, study)
    table = one_table(study, results)
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(table.to_rich())
    text = console.export_text()
    for row in markdown_rows(table.to_markdown(), "AUC, dev").values():
        assert all(cell in text for cell in plain(row) if cell.strip("-: "))
    assert "does a|b help?" in text
    assert "does a\\|b help?" in table.to_markdown()


def test_a_section_without_all_figures_is_named(study: LoadedStudy, tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    fill(results, study)
    assert not any("not in all means" in note for note in one_table(study, results).notes)
    scores = clips({"fan": 0.5, "valve": 1.0})
    scores.loc[(scores["machine"] == "valve") & (scores["section"] == "02"), "label"] = None
    hidden: dict[str, Any] = {"scores": scores, "metrics": summarise(scores, 2020)}
    for trial in trials_of(study, "d1"):
        results.write(record(trial, {"fan": 0.5, "valve": 1.0}, **hidden))
    notes = one_table(study, results, fingerprint="d1").notes
    assert "not in all means, for want of labelled test clips of either kind: valve 02" in notes
