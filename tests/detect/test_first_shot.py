"""Scores of 2023 and 2024: one section a machine, other machines in eval than in dev."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from raysd.detect.metrics import COLUMNS, aggregate
from raysd.detect.submission import evaluate_submission, write_submission
from raysd.errors import BadInput

# What the READMEs of nttcslab/dcase2023_task2_evaluator and dcase2024_task2_evaluator print for the official baselines:
# the metrics of each machine, their harmonic and arithmetic means over the machines, and over everything.
BASELINES = {
    (2023, "MAHALA"): (
        "bandsaw grinder shaker ToyDrone ToyNscale ToyTank Vacuum",
        {
            "auc_source": "0.836434267021059 0.7409411378914575 0.8476602762317048 0.8130000000000001 "
            "0.6678000000000002 0.8011999999999999 0.8383999999999999",
            "auc_target": "0.5885844748858448 0.50682261208577 0.6299533799533801 0.4622 0.409 0.4532 0.9006",
            "pauc": "0.5753594967896497 0.5955291246149972 0.6233307541280444 0.5142105263157895 0.5089473684210526 "
            "0.5384210526315789 0.653157894736842",
        },
        {
            "auc_source": (0.7871141310430937, 0.7922050973063174),
            "auc_target": (0.53090862919051, 0.5643372095607136),
            "pauc": (0.5682103280865886, 0.5727080310911363),
        },
        0.6105082186925268,
    ),
    (2023, "MSE"): (
        "bandsaw grinder shaker ToyDrone ToyNscale ToyTank Vacuum",
        {
            "auc_source": "0.6667348190554078 0.706837186424004 0.69428983714698 0.7968000000000001 0.77 "
            "0.7212000000000001 0.8816",
            "auc_target": "0.48287671232876717 0.5516569200779727 0.5604118104118104 0.561 0.4716 0.6468 "
            "0.45320000000000005",
            "pauc": "0.5091087658743451 0.5846166760294185 0.5491654428600755 0.5368421052631579 0.5178947368421053 "
            "0.5826315789473684 0.5947368421052631",
        },
        {
            "auc_source": (0.7423494890244248, 0.7482088346609131),
            "auc_target": (0.5253826834789426, 0.5325064918312215),
            "pauc": (0.5517419647782388, 0.5535708782745333),
        },
        0.5925469043549957,
    ),
    (2024, "MSE"): (
        "3DPrinter AirCompressor Scanner ToyCircuit HoveringDrone HairDryer ToothBrush RoboticArm BrushlessMotor",
        {
            "auc_source": "0.7912 0.65 0.6916 0.7658 0.8601999999999999 0.6224000000000001 0.7504000000000001 0.6596 "
            "0.7070000000000001",
            "auc_target": "0.47959999999999997 0.4824 0.5374000000000001 0.5266000000000001 0.43879999999999997 0.4598 "
            "0.6948 0.4152 0.6352",
            "pauc": "0.4942105263157895 0.5547368421052632 0.5010526315789474 0.5 0.5021052631578947 "
            "0.5163157894736842 0.5273684210526316 0.511578947368421 0.5557894736842105",
        },
        {
            "auc_source": (0.7150555228086642, 0.7220222222222223),
            "auc_target": (0.5057977147441246, 0.5188666666666667),
            "pauc": (0.5172271108149132, 0.5181286549707603),
        },
        0.5650830191796572,
    ),
}


def values(rows: pd.DataFrame) -> dict[tuple[str, str, str], float]:
    keys = zip(rows["machine"], rows["section"], rows["metric"], strict=True)
    return dict(zip(keys, rows["value"], strict=True))


@pytest.mark.parametrize(("year", "system"), BASELINES)
def test_means_and_official_scores_of_the_baselines(year: int, system: str):
    machines, metrics, means, official = BASELINES[year, system]
    rows = [
        ("eval", machine, "00", metric, float(value), 100, 100)
        for metric, values in metrics.items()
        for machine, value in zip(machines.split(), values.split(), strict=True)
    ]
    rows += [("eval", machine, "00", "auc", 0.5, 100, 100) for machine in machines.split()]  # of both domains: unused
    found = values(aggregate(pd.DataFrame(rows, columns=COLUMNS), year))
    for metric, (harmonic, arithmetic) in means.items():
        assert found["all", "harmonic_mean", metric] == pytest.approx(harmonic, abs=1e-12)
        assert found["all", "arithmetic_mean", metric] == pytest.approx(arithmetic, abs=1e-12)
    assert found["all", "harmonic_mean", "official"] == pytest.approx(official, abs=1e-12)


CLIPS = [  # domain, label, score
    ("source", "normal", 0),
    ("source", "normal", 2),
    ("source", "anomaly", 3),
    ("target", "normal", 4),
    ("target", "normal", 6),
    ("target", "anomaly", 1),
    ("target", "anomaly", 5),
]
LABELLED = [f"section_00_{domain}_test_{label}_{number:04d}_vel_1" for number, (domain, label, _) in enumerate(CLIPS)]
BARE = [f"section_00_{number:04d}" for number in range(len(CLIPS))]


def write(root: Path, files: dict[str, list[str]]) -> Path:
    for name, lines in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def evaluator_files(machine: str) -> dict[str, list[str]]:
    """The truth as the evaluators have it."""
    name = f"ground_truth_{machine}_section_00_test.csv"
    kinds = list(zip(BARE, CLIPS, LABELLED, strict=True))
    return {
        f"ground_truth_data/{name}": [f"{bare}.wav,{int(label == 'anomaly')}" for bare, (_, label, _), _ in kinds],
        f"ground_truth_domain/{name}": [f"{bare}.wav,{int(domain == 'target')}" for bare, (domain, _, _), _ in kinds],
        f"ground_truth_attributes/{name}": [f"{bare}.wav,{labelled}" for bare, _, labelled in kinds],
    }


def one_list(machine: str, year: int) -> dict[str, list[str]]:
    """The truth as the organisers' repository has it."""
    lines = [f"{bare}.wav,{labelled}.wav" for bare, labelled in zip(BARE, LABELLED, strict=True)]
    return {f"eval_data_list_{year}.csv": [machine, *lines]}


@pytest.mark.parametrize(("year", "machine"), [(2023, "bandsaw"), (2024, "3DPrinter")])
@pytest.mark.parametrize("names", [BARE, LABELLED])
@pytest.mark.parametrize("style", ["anomaly_score_{}_section_00_test.csv", "baseline"])
@pytest.mark.parametrize("form", ["evaluator", "list"])
def test_scores_are_evaluated_as_the_official_evaluators_do(
    tmp_path: Path, year: int, machine: str, names: list[str], style: str, form: str
):
    truth = write(tmp_path / "truth", evaluator_files(machine) if form == "evaluator" else one_list(machine, year))
    file = style.format(machine)
    if style == "baseline":
        file = f"anomaly_score_DCASE{year}T2{machine}_section_00_test_seed13711_id(0_)_Eval.csv"
    scores = [f"{name}.wav,{score}" for name, (_, _, score) in zip(names, CLIPS, strict=True)]
    evaluation = evaluate_submission(write(tmp_path / "scores", {file: scores}), truth, year)
    found = values(evaluation.rows)
    source, target = 5 / 6, 1 / 6  # normals of a domain against all anomalies: 0 < 3,1,5 and 2 < 3,5; 4 < 5
    pauc = 0.5 * (1 + (0 - 0.005) / (0.1 - 0.005))  # the first of four normals comes before any anomaly
    assert found[machine, "00", "auc_source"] == pytest.approx(source)
    assert found[machine, "00", "auc_target"] == pytest.approx(target)
    assert found[machine, "00", "pauc"] == pytest.approx(pauc)
    assert evaluation.official_score == pytest.approx(3 / (1 / source + 1 / target + 1 / pauc))


def test_a_clip_under_both_its_names_is_named(tmp_path: Path):
    truth = write(tmp_path / "truth", one_list("bandsaw", 2023))
    lines = [f"{name}.wav,1" for name in [*BARE, LABELLED[2]]]
    scores = write(tmp_path / "scores", {"anomaly_score_bandsaw_section_00_test.csv": lines})
    with pytest.raises(BadInput, match=r"line 8: clip 'section_00_source_test_anomaly_0002_vel_1.wav' is there twice"):
        evaluate_submission(scores, truth, 2023)


def test_what_is_written_of_renamed_clips_is_evaluated_with_the_truth_list(
    tmp_path: Path, raysd: Callable[..., tuple[int, str, str]]
):
    rows = [("bandsaw", "00", f"{name}.wav", float(clip[2])) for name, clip in zip(LABELLED, CLIPS, strict=True)]
    test = pd.DataFrame(rows, columns=["machine", "section", "name", "score"])
    train = test.assign(name=[f"section_00_source_train_normal_{i:04d}.wav" for i in range(len(test))])
    write_submission(tmp_path / "scores", train, test, 2023)
    truth = write(tmp_path / "truth", evaluator_files("bandsaw"))
    status, printed, _ = raysd("evaluate", tmp_path / "scores", "--year", 2023, "--truth", truth)
    assert status == 0
    assert "official score of 2023 (harmonic mean of AUC (source), AUC (target) and pAUC): 32.22" in printed
    status, unlisted, _ = raysd("evaluate", tmp_path / "scores", "--year", 2023)
    assert (status, unlisted) == (0, printed)
