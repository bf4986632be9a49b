"""Which clips are held out, what stands in for anomalies, and the proxies made of their scores."""

import pandas as pd
import pytest

from raysd.detect.proxies import arranged, objective_value, proxy_metrics
from raysd.errors import BadInput

KINDS = ("low", "high")


def _clips(sections: dict[tuple[str, str, str | None], int]) -> pd.DataFrame:
    """(machine, section, domain) -> number of training clips; each section has two test clips."""
    rows = []
    for (machine, section, domain), count in sections.items():
        for split, number in (("train", count), ("test", 2)):
            for i in range(number):
                path = f"{machine}/{split}/{section}_{domain}_{i}.wav"
                label = 0 if split == "train" else i
                rows.append((path, machine, section, "dev", split, domain, label, ()))
    columns = ["path", "machine", "section", "part", "split", "domain", "label", "attributes"]
    return pd.DataFrame(rows, columns=columns, index=range(100, 100 + len(rows))).astype({"label": "Int8"})


TWO = _clips({("fan", "00", None): 10, ("fan", "01", None): 5})


def test_without_a_share_the_clips_stay_as_they_are() -> None:
    found = arranged(TWO, 0, KINDS)
    pd.testing.assert_frame_equal(found.loc[:, list(TWO.columns)], TWO.reset_index(drop=True))
    assert found["row"].tolist() == TWO.index.tolist()
    assert set(found["perturbation"]) == {""}


def test_a_share_of_each_section_is_held_out_and_stands_in() -> None:
    found = arranged(TWO, 0.2, KINDS)
    assert found["split"].value_counts().to_dict() == {
        "train": 12,
        "held_out": 3,
        "test": 4,
        "perturbed": 6,
        "other_section": 3,
    }
    held_out = found.query("split == 'held_out'")
    assert sorted(held_out["section"]) == ["00", "00", "01"]
    for kind in KINDS:
        assert found.loc[found["perturbation"] == kind, "row"].tolist() == held_out["row"].tolist()
    others = found[found["split"] == "other_section"]
    assert dict(zip(others["row"], others["section"], strict=True)) == {
        row: {"00": "01", "01": "00"}[section]
        for row, section in zip(held_out["row"], held_out["section"], strict=True)
    }
    stands_in = found["split"].isin(["perturbed", "other_section"])
    assert found.loc[stands_in, "label"].isna().all()
    assert held_out["label"].tolist() == [0, 0, 0]


def test_which_are_held_out_follows_from_their_paths_alone() -> None:
    shuffled = TWO.sample(frac=1, random_state=1)
    fewer = TWO.query("section == '00'")
    chosen = [
        set(found.loc[(found["split"] == "held_out") & (found["section"] == "00"), "path"])
        for found in (arranged(clips, 0.2, ()) for clips in (TWO, shuffled, fewer))
    ]
    assert chosen[0] == chosen[1] == chosen[2]


@pytest.mark.parametrize(("count", "share", "held_out"), [(1, 0.5, 0), (2, 0.01, 1), (3, 0.5, 2), (10, 0.5, 5)])
def test_at_least_one_and_never_all_of_a_domain(count: int, share: float, held_out: int) -> None:
    found = arranged(_clips({("fan", "00", "source"): 10, ("fan", "00", "target"): count}), share, ())
    assert len(found.query("domain == 'target' and split == 'held_out'")) == held_out


def test_a_lone_section_lends_from_another_machine_and_alone_it_has_no_others() -> None:
    found = arranged(_clips({("fan", "00", None): 4, ("pump", "00", None): 4}), 0.25, ())
    assert set(found.loc[found["split"] == "other_section", "machine"]) == {"fan", "pump"}
    alone = arranged(_clips({("fan", "00", None): 4}), 0.25, ())
    assert "other_section" not in set(alone["split"])


def _scored(rows: list[tuple[str, str, str, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["machine", "section", "split", "score"]).assign(part="dev")


def test_a_proxy_is_the_auc_of_held_out_clips_against_stand_ins() -> None:
    scores = _scored(
        [
            *[("fan", "00", "train", 9.0), ("fan", "00", "test", 9.0)],  # neither counts
            *[("fan", "00", "held_out", score) for score in (1.0, 2.0)],
            *[("fan", "00", "perturbed", score) for score in (1.5, 3.0)],
            *[("fan", "01", "held_out", 1.0), ("fan", "01", "perturbed", 2.0)],
            *[("pump", "00", "held_out", 1.0), ("pump", "00", "perturbed", 1.0)],
        ]
    )
    found = proxy_metrics(scores, 2020).set_index(["machine", "section"])
    assert set(found["metric"]) == {"proxy_perturbed"}
    assert dict(found["value"]) == {
        ("fan", "00"): 0.75,
        ("fan", "01"): 1.0,
        ("pump", "00"): 0.5,
        ("fan", "arithmetic_mean"): 0.875,
        ("pump", "arithmetic_mean"): 0.5,
        ("all", "arithmetic_mean"): 0.6875,  # of the machines' means, as in 2020
    }
    assert found.loc[("all", "arithmetic_mean"), ["num_normal", "num_anomaly"]].tolist() == [4, 4]
    later = proxy_metrics(scores, 2022).set_index(["machine", "section"])["value"]
    assert float(later.loc[("all", "harmonic_mean")]) == pytest.approx(
        3 / (1 / 0.75 + 1 / 1.0 + 1 / 0.5)
    )  # of all sections


def test_the_objective_is_the_mean_over_all_and_its_absence_is_said() -> None:
    scores = _scored([("fan", "00", "held_out", 1.0), ("fan", "00", "perturbed", 2.0)])
    metrics = proxy_metrics(scores, 2020)
    assert objective_value(metrics, "proxy_perturbed", 2020) == 1.0
    with pytest.raises(BadInput, match="give no proxy_other_sections"):
        objective_value(metrics, "proxy_other_sections", 2020)
    assert len(proxy_metrics(scores.query("split == 'train'"), 2020)) == 0
