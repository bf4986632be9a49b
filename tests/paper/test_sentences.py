"""What is said of a comparison: a difference only where the test shows it, in words that fit the design."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_search import record, study_at

from raysd.paper.sentences import Finding, answer, answers, asides, names_of, p_text, sentence, subject
from raysd.paper.statistics import Comparison
from raysd.paper.tables import study_tables
from raysd.results.store import Results
from raysd.study.design import LoadedStudy, load_study, trials_of

NAN = math.nan


def found(difference: float, low: float = NAN, high: float = NAN, p: float = NAN, n: int = 6, family: int = 1) -> Any:
    adjusted = min(1.0, p * family) if p < 1 else p
    return Finding("v", "removing v", Comparison(n, difference, low, high, p, adjusted, family))


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        (
            found(-0.012, -0.020, -0.004, 0.0078, 8, 4),
            "Removing v lowers the AUC by 1.2 points [0.4, 2.0], p = 0.031 (Holm over 4), 8 seeds.",
        ),
        (
            found(0.1536, 0.1, 0.2, 2 / 2**12, 12),
            "Removing v raises the AUC by 15.4 points [10.0, 20.0], p < 0.001, 12 seeds.",
        ),
        (
            found(0.003, -0.008, 0.014, 0.62, 6),
            "Removing v: no evidence of a difference in the AUC (+0.3 points [-0.8, 1.4], p = 0.62, 6 seeds).",
        ),
        (
            found(0.003, -0.008, 0.014, 0.75, 3),
            "Removing v: +0.3 points [-0.8, 1.4], not testable with 3 seeds.",
        ),
        (
            found(0.1, 0.05, 0.15, 0.03125, 6, 9),
            "Removing v: +10.0 points [5.0, 15.0], not testable with 6 seeds among 9 variants. The interval excludes "
            "0, the test does not show it.",
        ),
        (
            found(0.1, 0.05, 0.15, 0.0625, 8),
            "Removing v: no evidence of a difference in the AUC (+10.0 points [5.0, 15.0], p = 0.062, 8 seeds). "
            "The interval excludes 0, the test does not show it.",
        ),
        (
            found(0.01, -0.001, 0.021, 0.04, 8),
            "Removing v raises the AUC by 1.0 points [-0.1, 2.1], p = 0.04, 8 seeds. "
            "The interval holds 0 all the same: take it with care.",
        ),
        (
            found(-0.0000001, -0.01, 0.01, 1.0, 8),
            "Removing v: no evidence of a difference in the AUC (+0.00 points [-1.00, 1.00], p = 1, 8 seeds).",
        ),
        (found(0.01, n=1), "Removing v: +1.0 points seen with one seed, for which there is no test."),
        (
            found(NAN, n=0),
            "Removing v: nothing is known, as no finished seed is shared with the baseline.",
        ),
    ],
)
def test_one_variant(finding: Finding, said: str) -> None:
    assert sentence(finding, "the AUC") == said


def test_of_one_variant_its_sentence_is_the_answer() -> None:
    shown = found(-0.012, -0.020, -0.004, 0.0078, 8)
    assert answer([shown], "the AUC") == sentence(shown, "the AUC")
    assert answer([found(0.003, -0.008, 0.014, 0.75, 3)], "the AUC") == (
        "With 3 seeds no test can show a difference in the AUC (least p 0.25; it takes 6 seeds); seen: removing v, "
        "+0.3 points [-0.8, 1.4]."
    )


def many(*said: tuple[float, float, float, float], n: int, family: int) -> list[Finding]:
    """Variants a, b, ... of (difference, low, high, p after Holm)."""
    return [
        Finding(name, f"'{name}'", Comparison(n, difference, low, high, p, p, family))
        for name, (difference, low, high, p) in zip("abcdefg", said, strict=False)
    ]


NOT = (0.003, -0.008, 0.014, 0.62)
HINT = (0.03, 0.01, 0.05, 0.2)
DOWN, UP = (-0.02, -0.03, -0.01, 0.02), (0.01, 0.005, 0.015, 0.04)


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        (
            many(DOWN, NOT, UP, n=10, family=3),
            "2 of 3 variants differ from the baseline in the AUC, most of all 'a', which lowers it by 2.0 points "
            "[1.0, 3.0], p = 0.02 (Holm over 3), 10 seeds.",
        ),
        (
            many(NOT, UP, n=10, family=2),
            "1 of 2 variants differs from the baseline: 'b' raises the AUC by 1.0 points [0.5, 1.5], p = 0.04 (Holm "
            "over 2), 10 seeds.",
        ),
        (
            many(NOT, HINT, n=10, family=2),
            "No evidence of a difference in the AUC: none of 2 variants is told apart from the baseline (least p = 0.2 "
            "(Holm over 2), 10 seeds); the largest difference seen: 'b', +3.0 points [1.0, 5.0].",
        ),
        (
            many(NOT, HINT, n=3, family=2),
            "With 3 seeds no test can show a difference in the AUC (least p 0.25; it takes 7 seeds); the largest "
            "difference seen: 'b', +3.0 points [1.0, 5.0].",
        ),
        (
            many(NOT, HINT, n=6, family=2),
            "With 6 seeds no test can show a difference in the AUC (least p 0.062 after Holm's correction for 2 tests; "
            "it takes 7 seeds); the largest difference seen: 'b', +3.0 points [1.0, 5.0].",
        ),
        (
            many((0.01, NAN, NAN, NAN), (-0.02, NAN, NAN, NAN), n=1, family=0),
            "With one seed there is no test; the largest difference seen: 'b', -2.0 points.",
        ),
        (
            many((NAN, NAN, NAN, NAN), n=0, family=0),
            "Nothing can be said yet: no variant has a finished seed that the baseline has too.",
        ),
        ([], "There is nothing to compare: the study has no variant beside its baseline."),
    ],
)
def test_the_whole_study(findings: list[Finding], said: str) -> None:
    assert answer(findings, "the AUC") == said


def test_what_stands_beside_the_answer() -> None:
    others, hints = asides(many(DOWN, NOT, UP, HINT, n=10, family=4))
    assert others == "The other with a difference: 'c' (+1.0)."
    assert hints.startswith("Interval and test disagree for 'd': the interval excludes 0, but the test, corrected")
    assert asides(many(NOT, NOT, n=10, family=2)) == []


def test_machines_that_differ_in_sign_are_told_apart() -> None:
    up, down = Comparison(8, 0.02, 0.01, 0.03, 0.008, 0.008, 1), Comparison(8, -0.004, -0.01, 0.002, 0.3, 0.3, 1)
    over_all = Comparison(8, 0.008, -0.01, 0.02, 0.3, 0.3, 1)
    both = Finding("v", "'v'", over_all, {"fan": down, "pump": up})
    assert sentence(both, "the AUC").endswith(
        "The sign differs by machine: pump +2.0*, fan -0.4 (*: the test shows it)."
    )
    neither = Finding("v", "'v'", over_all, {"fan": down, "pump": over_all})
    assert sentence(neither, "the AUC").endswith("pump +0.8, fan -0.4 (the test shows it on none of them).")
    most = Finding("v", "'v'", up, {"fan": down, "pump": up})
    assert "8 seeds; the sign differs by machine (1 up, 1 down)." in answer([most, neither], "the AUC")
    assert "machine" not in sentence(Finding("v", "'v'", over_all, {"fan": up, "pump": up}), "the AUC")


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0004, "p < 0.001"), (0.03125, "p = 0.031"), (0.0496, "p = 0.0496"), (0.0504, "p = 0.0504"), (1.0, "p = 1")],
)
def test_a_p_is_never_rounded_over_the_edge(p: float, text: str) -> None:
    assert p_text(p) == text


def of_design(folder: Path, **changes: Any) -> LoadedStudy:
    study_at(folder)
    study = {"question": "which?", "baseline": "recipes/base.yaml", "profile": "cpu", "seeds": [0, 1]}
    (folder / "s.yaml").write_text(yaml.safe_dump(study | changes, sort_keys=False), encoding="utf-8")
    return load_study(folder / "s.yaml")


MIXUP = {"mixup": {"setting": "augment.log_mixup_exp", "off": None}}
HIGH = {"high": {"setting": "augment.high_frequency", "off": None}}
CUTOFF = {"cutoff_hz": {"setting": "augment.high_frequency.cutoff_hz", "levels": [500, 1000]}}
MODE = {"mode": {"setting": "augment.high_frequency.mode", "levels": ["noise", "gain"]}}


@pytest.mark.parametrize(
    ("changes", "subjects"),
    [
        ({"design": "leave_one_out", "factors": MIXUP | HIGH}, ["removing mixup", "removing high"]),
        (
            {"design": "only_one", "factors": MIXUP | HIGH},
            ["removing all 2 factors", "keeping mixup alone", "keeping high alone"],
        ),
        (
            {"design": "one_at_a_time", "factors": CUTOFF | MODE},
            ["cutoff_hz=500 instead of 2000", "cutoff_hz=1000 instead of 2000", "mode=gain instead of noise"],
        ),
        (
            {"design": "factorial", "factors": MODE | {"cutoff_hz": CUTOFF["cutoff_hz"] | {"levels": [500, 2000]}}},
            [
                "cutoff_hz=500 instead of 2000",
                "mode=gain and cutoff_hz=500 instead of noise and 2000",
                "mode=gain instead of noise",
            ],
        ),
        ({"design": "list", "variants": {"no mixup": {"augment.log_mixup_exp": None}}}, ["'no mixup'"]),
    ],
)
def test_each_design_has_its_words(tmp_path: Path, changes: dict[str, Any], subjects: list[str]) -> None:
    study = of_design(tmp_path, **changes)
    assert [subject(variant, study.baseline) for variant in study.variants if variant.role == "variant"] == subjects


def test_the_answer_of_a_table(tmp_path: Path) -> None:
    seeds = list(range(8))
    study = of_design(
        tmp_path, design="leave_one_out", factors=MIXUP | HIGH, references=["recipes/floor.yaml"], seeds=seeds
    )
    results = Results(tmp_path / "results")
    values = {"baseline": 0.7, "without mixup": 0.68, "without high": 0.7, "floor": 0.9}
    for trial in trials_of(study, "d0"):
        noise = 0.001 * (-1) ** (trial.seed + (trial.variant == "without high"))
        if (trial.variant, trial.seed) != ("without high", 7):
            results.write(record(trial, {}, values[trial.variant] + noise))
    (table,) = study_tables(study, results)
    assert names_of([table]) == ["DCASE 2020, fan, pump"]
    said = answers(table, study)["dev"]
    assert said.sentence.startswith(
        "1 of 2 variants differs from the baseline: removing mixup lowers the official score by 2.0"
    )
    assert said.variants[1].startswith("Removing high: no evidence of a difference in the official score")
    assert said.more[0] == (
        "The highest mean is that of 'baseline', 70.0 %; every other row with as many seeds is told apart from it."
    )
    assert "Above all rows that are compared: 'floor' (90.1 %), a reference, which is not tested." in said.more
    assert said.more[-1] == "Not all trials are finished: 'without high' 7/8."
