import math

import numpy as np
import pandas as pd
import pytest

from raysd.detect.metrics import COLUMNS, averaging, headline_metrics, section_metrics, summarise
from raysd.errors import BadInput


def clips(*groups: tuple, part: str = "dev") -> pd.DataFrame:
    """Clips from (machine, section, domain, scores of normals, scores of anomalies)."""
    rows = [
        (part, machine, section, domain, label, float(score))
        for machine, section, domain, *classes in groups
        for label, scores in enumerate(classes)
        for score in scores
    ]
    return pd.DataFrame(rows, columns=["part", "machine", "section", "domain", "label", "score"])


def value(rows: pd.DataFrame, metric: str, machine: str = "fan", section: str = "00", part: str = "dev") -> float:
    chosen = rows.loc[
        (rows["metric"] == metric)
        & (rows["machine"] == machine)
        & (rows["section"] == section)
        & (rows["part"] == part)
    ]
    assert len(chosen) == 1, f"{len(chosen)} rows of {metric}"
    return float(chosen["value"].iloc[0])


def test_auc_is_the_share_of_pairs_in_the_right_order():
    rows = section_metrics(clips(("fan", "00", None, [1, 3], [2, 4])), 2020)
    assert value(rows, "auc") == 0.75  # (1,2) (1,4) (3,4) right, (3,2) wrong
    assert list(rows.columns) == COLUMNS
    assert rows[["num_normal", "num_anomaly"]].drop_duplicates().to_numpy().tolist() == [[2, 2]]


def test_pauc_is_standardised_and_can_be_below_chance():
    normals = [*range(9), 100]  # one false alarm is a rate of 0.1, where pAUC ends
    rows = section_metrics(clips(("fan", "00", None, normals, [50, 60]), ("fan", "02", None, [1, 2], [3])), 2020)
    assert value(rows, "pauc") == pytest.approx(0.5 * (1 + (0 - 0.005) / (0.1 - 0.005)))
    assert value(rows, "pauc", section="02") == 1.0


def test_a_domain_of_2022_is_set_against_the_anomalies_of_both():
    scores = clips(("fan", "00", "source", [0, 2], [3]), ("fan", "00", "target", [4, 6], [1, 5]))
    rows = section_metrics(scores, 2022)
    assert value(rows, "auc_source") == pytest.approx(5 / 6)  # 0 < 3,1,5 and 2 < 3,5
    assert value(rows, "auc_target") == pytest.approx(1 / 6)  # 4 < 5
    assert value(rows, "auc_source_same") == 1.0
    assert value(rows, "auc_target_same") == 0.25
    assert value(rows, "auc") == pytest.approx(6 / 12)
    assert {"pauc", "pauc_source_same", "pauc_target_same"} <= set(rows["metric"])
    assert "pauc_source" not in set(rows["metric"])


def test_the_domains_of_2021_are_tested_apart():
    scores = clips(("fan", "00", "source", [0, 2], [3]), ("fan", "00", "target", [4, 6], [1, 5]))
    rows = summarise(scores, 2021)
    assert value(rows, "auc_source") == value(rows, "auc_source_same") == 1.0
    assert value(rows, "auc_target") == value(rows, "auc_target_same") == 0.25
    paucs = value(rows, "pauc_source"), value(rows, "pauc_target")
    official = 4 / (1 / 1.0 + 1 / 0.25 + 1 / paucs[0] + 1 / paucs[1])
    assert value(rows, "official", "all", "harmonic_mean") == pytest.approx(official)


def test_means_of_2020_are_taken_per_machine_first():
    rows = summarise(
        clips(
            ("fan", "00", None, [1], [2]),
            ("pump", "00", None, [2], [1]),
            ("pump", "02", None, [1, 3], [2]),
        ),
        2020,
    )
    assert value(rows, "auc", "pump", "arithmetic_mean") == 0.25
    assert value(rows, "auc", "all", "arithmetic_mean") == (1 + 0.25) / 2
    pauc = value(rows, "pauc", "all", "arithmetic_mean")
    assert value(rows, "official", "all", "arithmetic_mean") == pytest.approx((0.625 + pauc) / 2)
    assert rows[(rows["metric"] == "official") & (rows["section"] == "harmonic_mean")].empty


def test_official_score_of_2022_is_one_harmonic_mean_over_everything():
    rows = summarise(
        clips(
            ("fan", "00", "source", [0, 2], [3]),
            ("fan", "00", "target", [4, 6], [1, 5]),
            ("valve", "00", "source", [0], [3]),
            ("valve", "00", "target", [1], [2]),
        ),
        2022,
    )
    terms = rows[rows["metric"].isin(["auc_source", "auc_target", "pauc"]) & (rows["section"] == "00")]["value"]
    assert len(terms) == 6
    assert value(rows, "official", "all", "harmonic_mean") == pytest.approx(6 / (1 / terms).sum())
    domains = [value(rows, f"auc_{domain}") for domain in ("source", "target")]
    assert value(rows, "auc_domains", section="arithmetic_mean") == pytest.approx(sum(domains) / 2)


def test_a_harmonic_mean_has_the_official_floor():
    rows = summarise(clips(("fan", "00", "source", [1], [0]), ("fan", "00", "target", [1], [0])), 2022)
    assert value(rows, "auc_source") == 0
    assert 0 < value(rows, "auc_source", section="harmonic_mean") < 1e-15


def test_pooled_metrics_rank_all_clips_of_a_machine():
    rows = summarise(clips(("fan", "00", None, [1], [2]), ("fan", "02", None, [11], [12])), 2020)
    assert value(rows, "auc", section="arithmetic_mean") == 1.0
    assert value(rows, "auc_pooled", section="pooled") == 0.75
    assert value(rows, "auc_pooled", "all", "arithmetic_mean") == 0.75


def test_a_section_of_one_class_has_no_row_and_is_missing_from_the_counts():
    rows = summarise(clips(("fan", "00", None, [1, 2], [3]), ("fan", "02", None, [1, 2, 3, 4], [])), 2020)
    assert rows[rows["section"] == "02"].empty
    mean = rows.loc[
        (rows["section"] == "arithmetic_mean") & (rows["metric"] == "official") & (rows["machine"] == "fan")
    ]
    assert mean[["num_normal", "num_anomaly"]].to_numpy().tolist() == [[2, 1]]
    assert np.isfinite(rows["value"].to_numpy()).all()


def test_unlabelled_clips_are_left_out():
    scores = clips(("fan", "00", None, [1, 3], [2, 4]))
    unlabelled = scores.assign(label=pd.Series([None] * 4, dtype=object), part="eval")
    rows = summarise(pd.concat([scores, unlabelled]), 2020)
    assert set(rows["part"]) == {"dev"}
    only_unlabelled = summarise(unlabelled, 2020)
    assert only_unlabelled.empty
    assert list(only_unlabelled.columns) == COLUMNS


def test_dev_and_eval_are_kept_apart():
    scores = pd.concat(
        [clips(("fan", "00", None, [1], [2])), clips(("fan", "01", None, [2], [1]), part="eval")], ignore_index=True
    )
    rows = summarise(scores, 2020)
    assert value(rows, "auc", "all", "arithmetic_mean") == 1.0
    assert value(rows, "auc", "all", "arithmetic_mean", part="eval") == 0.0
    assert value(rows, "auc_pooled", section="pooled") == 1.0


def test_decisions_give_precision_recall_and_f1():
    scores = clips(("fan", "00", "source", [1, 2, 3], [4, 5]), ("fan", "00", "target", [1, 2], [3]))
    scores["decision"] = [0, 0, 1, 1, 0, 0, 0, 0]
    rows = summarise(scores, 2022)
    assert [value(rows, f"{metric}_source") for metric in ("precision", "recall", "f1")] == [0.5, 0.5, 0.5]
    assert [value(rows, f"{metric}_target") for metric in ("precision", "recall", "f1")] == [0, 0, 0]
    assert value(rows, "recall_domains", section="arithmetic_mean") == 0.25
    assert value(section_metrics(scores, 2020), "precision") == 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_names_its_clip(bad: float):
    scores = clips(("fan", "00", None, [1], [2])).assign(name=["a.wav", "b.wav"])
    scores.loc[1, "score"] = bad
    with pytest.raises(BadInput, match=r"fan 00 b\.wav: the score is not finite"):
        section_metrics(scores, 2020)


def test_a_label_other_than_0_and_1_names_its_clip():
    scores = clips(("fan", "00", None, [1], [2])).assign(name=["a.wav", "b.wav"], label=[0, 2])
    with pytest.raises(BadInput, match=r"fan 00 b\.wav: the label is 2"):
        section_metrics(scores, 2020)


def test_rows_do_not_depend_on_the_order_of_clips():
    scores = clips(("fan", "00", "source", [0, 2], [3]), ("fan", "01", "target", [4, 6], [1, 5]))
    pd.testing.assert_frame_equal(summarise(scores, 2022), summarise(scores.iloc[::-1], 2022))


def test_headline_metrics_are_those_of_the_official_score():
    assert headline_metrics(2020) == ("auc", "pauc", "official")
    assert headline_metrics(2021) == ("auc_source", "auc_target", "pauc_source", "pauc_target", "official")
    assert headline_metrics(2022) == headline_metrics(2024) == ("auc_source", "auc_target", "pauc", "official")
    assert (averaging(2020), averaging(2022)) == ("arithmetic_mean", "harmonic_mean")
