"""The comparison table: published figures as they are, ours in the same mean below, and what keeps them apart."""

import csv
import io
import json
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from raysd.data.counts import expected
from raysd.data.years import YEARS
from raysd.detect.metrics import harmonic_mean, summarise
from raysd.errors import BadInput
from raysd.paper.comparison import YearComparison, compare_with_published
from raysd.paper.gaps import data_gaps, has_all_sections
from raysd.paper.published import Published, read_published
from raysd.recipe import NUMERICS, recipe_key
from raysd.results.store import Record, Results
from raysd.study.design import LoadedStudy, Trial, load_study, trials_of

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT / "results" / "real"
RAN = Callable[..., tuple[int, str, str]]
NOW = datetime(2024, 1, 1, tzinfo=UTC)


def study_of(folder: Path, year: int) -> LoadedStudy:
    files = {
        "base": {"augment": {"random_resize_crop": {}}},
        "s": {
            "question": "does it help?",
            "baseline": "base.yaml",
            "changes": {"data.year": year},
            "factors": {"crop": {"setting": "augment.random_resize_crop"}},
            "design": "leave_one_out",
            "seeds": [0, 1],
            "references": [],
        },
    }
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load_study(folder / "s.yaml")


def clips(year: int, machines: list[str], share: float) -> pd.DataFrame:
    """Ten normals and an anomaly a section, the clips of each section scored above those of the section before.

    The anomaly beats `share` of the normals; in the section after the first, all of them.
    """
    rows = []
    for machine in machines:
        for k, section in enumerate(YEARS[year].machines[machine][0]):
            for domain in ("source", "target") if YEARS[year].domains else (None,):
                shared = {"machine": machine, "section": section, "part": "dev", "split": "test", "domain": domain}
                rows += [shared | {"path": f"n{i}", "label": 0, "score": 100.0 * k + i} for i in range(10)]
                rows.append(shared | {"path": "a", "label": 1, "score": 100.0 * k + 10 * (share if k < 1 else 1) - 0.5})
    return pd.DataFrame(rows)


def fill(results: Results, study: LoadedStudy, machines: list[str]) -> None:
    """Shares of 0.5 and 0.7 with the seeds 0 and 1, and 0.1 more without the crop."""
    for trial in trials_of(study, "d0"):
        results.write(record_of(trial, machines, 0.5 + 0.2 * trial.seed + 0.1 * (trial.role == "variant")))


def record_of(trial: Trial, machines: list[str], share: float) -> Record:
    year = trial.recipe.data.year
    scores = clips(year, machines, share)
    values: dict[str, Any] = {
        **{"key": trial.key, "training_key": trial.training_key, "recipe_key": recipe_key(trial.recipe)},
        **{"numerics": NUMERICS, "variant": trial.variant, "study": "s", "profile": None, "seed": trial.seed},
        **{"year": year, "data_fingerprint": trial.fingerprint, "recipe": trial.recipe.model_dump_json()},
        **{"started": NOW, "finished": NOW, "train_seconds": 1.0, "total_seconds": 2.0},
        **{"provenance": json.dumps({"commit": "c0ffee", "skipped": []})},
        **{"scores": scores.to_dict("records"), "metrics": summarise(scores, year).to_dict("records")},
    }
    return Record(**values)


def figure(system: str, machine: str, metric: str, value: str, mean: str = "arithmetic", **changes: str) -> Published:
    told = {"dataset": "dcase2020_dev", "system": system, "year": "2021", "machine_type": machine, "metric": metric}
    told |= {"value_percent": value, "mean": mean, "averaging": f"{mean}, it says", "source": f"paper of {system}"}
    return Published.model_validate(told | {"sd_percent": "", "num_seeds": "", "caveats": ""} | changes)


def rows_of(comparison: YearComparison, title: str) -> dict[tuple[str, str], list[str]]:
    """The cells of each row of a grid by heading of its block and label, with the keys of its footnotes."""
    (grid,) = [grid for grid in comparison.sheet().grids if grid.title == title]
    found, heading = {}, ""
    for number, row in enumerate(grid.entries()):
        heading = grid.breaks.get(number, heading)
        assert set(row[0].notes) <= set(grid.footnotes)
        label = row[0].text + "".join(f" ({note})" for note in row[0].notes)
        found[heading, label] = [cell.text for cell in row[1:]]
    return found


FIGURES = [
    *(figure("A", machine, "auc", "90.123") for machine in YEARS[2020].machines),
    figure("B", "average", "auc", "85.0", num_seeds="4", sd_percent="0.4"),
    figure("B", "average", "pauc", "70", num_seeds="4", caveats="quoted"),
    figure("C (TFgram)", "average", "auc", "95.71", "pooled", caveats="additional_data pooled"),
    figure("D", "average", "auc", "99", "unknown", caveats="test_selected averaging_unknown"),
    figure("Meng et al. (TARGET PAPER)", "average", "auc", "93.83", "unknown", caveats="averaging_unknown"),
    figure("E", "average", "auc", "50.5", dataset="dcase2020_eval"),
]
GOLDEN = """\
### Averages over machine types, development data

| system | seeds | AUC | pAUC | official score |
| --- | ---: | ---: | ---: | ---: |
| *the paper that is asked about, as others report it* |  |  |  |  |
| Meng et al. (TARGET PAPER) [5] <sup>d</sup> |  | 93.83 |  |  |
| *as published, arithmetic means over ids and machine types* |  |  |  |  |
| B [2] | 4 | 85.0 ± 0.4 | 70 <sup>e</sup> |  |
| *ours, arithmetic means over ids and machine types* |  |  |  |  |
| baseline <sup>f</sup> | 2/2 | 89.44 ± 3.73 | 86.11 ± 0.00 | 87.78 ± 1.87 |
| without crop <sup>f</sup> | 2/2 | 92.08 ± 3.73 | 86.11 ± 0.00 | 89.10 ± 1.87 |
| *as published, all ids of a machine type pooled* |  |  |  |  |
| C (TFgram) [3] <sup>a, c</sup> |  | 95.71 |  |  |
| *ours, all ids of a machine type pooled* |  |  |  |  |
| baseline <sup>f</sup> | 2/2 | 60.37 ± 1.00 | 61.26 ± 0.00 |  |
| *as published, averaging not stated* |  |  |  |  |
| D [4] <sup>b, d</sup> |  | 99 |  |  |

- <sup>a</sup> all ids of a machine type in one ranking, not the mean over ids
- <sup>b</sup> checkpoint chosen by the labels of the very test clips that it is scored on
- <sup>c</sup> trained on the additional training data too: all 41 ids of 2020
- <sup>d</sup> what is averaged, and how, is not stated
- <sup>e</sup> figure quoted by others than its authors
- <sup>f</sup> not the data of the published rows, so not comparable with them: see the caption
"""


def test_published_and_ours_stand_in_blocks_of_one_mean_each(tmp_path: Path) -> None:
    study, results = study_of(tmp_path, 2020), Results(tmp_path / "r")
    fill(results, study, list(YEARS[2020].machines))
    (comparison,) = compare_with_published(study, results, figures=FIGURES)
    text = comparison.to_markdown()
    assert GOLDEN in text
    by_type = rows_of(comparison, "AUC by machine type, development data")
    assert [label for _, label in by_type] == ["A [1]", "baseline (other_data)", "without crop (other_data)"]
    assert by_type["as published, arithmetic means over ids and machine types", "A [1]"] == ["", *["90.12"] * 6, ""]
    # four ids, of which the first reads 0.5 and 0.7, the others 1; ToyConveyor has three
    ours = by_type["ours, arithmetic means over ids and machine types", "baseline (other_data)"]
    assert ours == ["2/2", *["90.00 ± 3.54"] * 5, "86.67 ± 4.71", "89.44 ± 3.73"]
    assert "- ours: study s, profile none; trained on: dev; checkpoint: last epoch; data: fingerprint d0; code" in text
    assert "- ours: mean ± standard deviation over n = 2 seeds (0, 1)" in text
    assert "NOT COMPARABLE: ours is not the development data of the published rows: fan: 0 of about 3,675" in text
    assert "ours: no scores on the evaluation data" in text
    assert "| [3] | paper of C (TFgram) | pooled, it says |" in text


def test_2022_keeps_harmonic_and_arithmetic_means_apart_and_shows_no_average_of_some_types(tmp_path: Path) -> None:
    study, results = study_of(tmp_path, 2022), Results(tmp_path / "r")
    fill(results, study, ["fan", "valve"])
    on, meng = {"dataset": "dcase2022_dev"}, "Meng et al. (TARGET PAPER)"
    unknown = {"dataset": "dcase2022", "caveats": "increase averaging_unknown"}
    figures = [
        *(figure("AE", machine, "auc_source", "78.5", "harmonic", **on) for machine in ("fan", "average")),
        figure("AE", "average", "hmean_official", "52.61", "harmonic", **on, caveats="quoted"),
        figure("AE", "fan", "auc_source", "78.9", **on),
        figure(meng, "average", "increase_source", "26.62", "unknown", **unknown),
        figure(meng, "average", "increase_target", "16.83", "unknown", **unknown),
    ]
    (comparison,) = compare_with_published(study, results, figures=figures)
    by_type = rows_of(comparison, "AUC source by machine type, development data")
    cells = {key: row[-3:] for key, row in by_type.items()}  # slider, valve, average
    at = list(YEARS[2022].machines).index("fan") + 1
    on_fan = [row[at] for row in by_type.values()]
    assert on_fan[:3] == ["78.5", *(ours_on_fan(harmonic_mean, more) for more in (0, 0.1))]
    assert on_fan[3:] == ["78.9", ours_on_fan(np.mean, 0)]  # of ours the baseline alone
    assert list(dict.fromkeys(heading for heading, _ in cells)) == [
        "as published, harmonic means over sections and machine types",
        "ours, harmonic means over sections and machine types",
        "as published, arithmetic means over sections and machine types",
        "ours, arithmetic means over sections and machine types",
    ]
    assert all(row[0] == row[2] == "" and row[1] for (heading, _), row in cells.items() if "ours" in heading)
    assert "ours: no average over machine types on the development data" in " ".join(comparison.caption())
    assert "2 of 7 machine types; fan: 0 of" in " ".join(comparison.caption())

    averages = rows_of(comparison, "Averages over machine types, development data")
    harmonic = averages.pop(("as published, harmonic means over sections and machine types", "AE [1]"))
    assert harmonic == ["", "78.5", "", "", "52.61"]
    assert averages == {}  # nothing of ours, and no increase among values
    increases = rows_of(comparison, "Increases as they are reported, no values")
    assert list(increases.values()) == [["", "+26.62 over its baseline", "+16.83 over its baseline"]]
    assert "not stated; the values themselves were not found" in comparison.to_markdown()


def ours_on_fan(mean: Callable[[np.ndarray], float], more: float) -> str:
    """AUC source of three sections: normals of one domain against both anomalies, which read alike."""
    values = [100 * mean(np.array([share + more, 1, 1])) for share in (0.5, 0.7)]
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


@pytest.mark.parametrize("year", [2020, 2022])
def test_the_committed_tables_are_made_from_the_trials_and_set_nothing_off(year: int) -> None:
    study = load_study("augmentation", {"data.year": year}, profile="cpu")
    (comparison,) = compare_with_published(study, Results(REAL))
    assert (REAL / f"comparison_{year}.md").read_text(encoding="utf-8") == comparison.to_markdown()

    known = {"", "system", "seeds", "average", "source", "averaging, in its words", "source domain", "target domain"}
    known |= {"AUC", "pAUC", "AUC source", "AUC target", "official score", *YEARS[year].machines}
    for grid in comparison.sheet().grids:
        assert set(grid.header) <= known  # no difference, no p
        assert not any(cell.best or cell.second or cell.tied for row in grid.entries() for cell in row)

    lines = list(csv.DictReader(io.StringIO(comparison.to_csv())))
    published = [line for line in lines if line["origin"] == "published"]
    there = [(line["system"], line["value_percent"], line["caveats"]) for line in published]
    tabled = [one for one in read_published() if one.dataset.startswith(f"dcase{year}") and "mauc" not in one.metric]
    assert sorted(there) == sorted((one.system, one.value_percent, " ".join(one.caveats)) for one in tabled)
    ours = [line for line in lines if line["origin"] == "ours"]
    assert {line["caveats"] for line in ours} == {"other_data"}
    assert {line["machine"] for line in ours} == {"ToyCar" if year == 2020 else "valve"}
    trials = Results(REAL).done()
    assert all(set(line["keys"].split()) <= trials for line in ours)

    for text in (comparison.to_latex(), comparison.to_html(), comparison.to_macros()):
        assert "95.71" in text if year == 2020 else "86.81" in text
        assert "91.65" in text or "73.88" in text
    marked = {2020: r"OS-SCL (TFgram) [9]\textsuperscript{a,c,g,h}", 2022: r"52.61\rlap{\textsuperscript{g}}"}
    assert marked[year] in comparison.to_latex()


def test_data_are_whole_where_every_section_has_its_clips_and_figures(tmp_path: Path) -> None:
    record = record_of(trials_of(study_of(tmp_path, 2022), "d0")[0], list(YEARS[2022].machines), 0.5)
    whole: list[dict[str, Any]] = []
    for machine, (sections, _) in YEARS[2022].machines.items():
        for section in sections:
            counts = expected(2022, "dev", machine, section)
            assert counts is not None
            clip = {"part": "dev", "machine": machine, "section": section}
            whole += [clip | {"split": "train"}] * sum(count.low for count in counts.train.values())
            whole += [clip | {"split": "test"}] * sum(count.low for count in counts.test.values())
    assert data_gaps(replace(record, scores=whole), "dev") == []
    assert data_gaps(replace(record, scores=whole[1:]), "dev") != []
    assert has_all_sections(record, "dev")
    lacking = [row for row in record.metrics if (row["machine"], row["section"]) != ("fan", "02")]
    assert not has_all_sections(replace(record, metrics=lacking), "dev")
    some = [clip for clip in whole if (clip["machine"], clip["section"]) != ("fan", "02")]
    assert data_gaps(replace(record, scores=some), "dev") == ["fan: 2 of 3 sections"]
    assert data_gaps(replace(record, scores=some), "eval") == ["0 of 7 machine types"]


def test_without_trials_it_says_so_and_shows_what_is_published(tmp_path: Path) -> None:
    (comparison,) = compare_with_published(study_of(tmp_path, 2020), Results(tmp_path / "none"))
    text = comparison.to_markdown()
    assert "- ours: no finished trial of study s\n" in text
    assert "| STgram-MFN (ArcFace) [5]" in text
    assert "*ours" not in text
    with pytest.raises(BadInput, match="study s: no published figures on DCASE 2021 are at hand, only on 2020 and"):
        compare_with_published(study_of(tmp_path, 2021), Results(tmp_path / "none"))


def test_the_command_and_the_scripts_print_it(
    raysd: RAN, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, printed, _ = raysd("table", "augmentation", "--published", "--results", tmp_path)
    assert status == 0
    assert "DCASE 2020: published systems and study augmentation" in printed
    assert "ours: no finished trial" in printed
    script = ROOT / "analysis" / "dcase2022_table.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--results", str(tmp_path), "--format", "markdown"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert not ended.value.code
    assert capsys.readouterr().out.startswith("## DCASE 2022: published systems and study dcase2022\n")
    for words, reason in (
        (("search",), "search is a search"),
        (("augmentation", "--explain", "fan"), "leave out --published"),
        (("augmentation", "--set", "data.year=2021"), "no published figures on DCASE 2021"),
    ):
        status, printed, error = raysd("table", *words, "--published", "--results", tmp_path)
        assert (status, printed) == (2, "")
        assert reason in error
