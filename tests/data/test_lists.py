"""The organisers' lists of 2023 and 2024, as they are published, and lists that contradict each other."""

from pathlib import Path

import pytest

from raysd.data.lists import read_renamed, read_truth
from raysd.data.years import parse_name
from raysd.errors import BadInput


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


# The first lines of the evaluators' files, and of the lists in the organisers' repository.
EVALUATOR_2023 = {
    "ground_truth_data/ground_truth_bandsaw_section_00_test.csv": "section_00_0000.wav,0\nsection_00_0001.wav,1\n",
    "ground_truth_domain/ground_truth_bandsaw_section_00_test.csv": "section_00_0000.wav,1\nsection_00_0001.wav,1\n",
    "ground_truth_attributes/ground_truth_bandsaw_section_00_test.csv": (
        "section_00_0000.wav,section_00_target_test_normal_0000_vel_12\n"
        "section_00_0001.wav,section_00_target_test_anomaly_0001_vel_12\n"
    ),
}
LIST_2023 = {
    "eval_data_list_2023.csv": (
        "bandsaw\n"
        "section_00_0001.wav,section_00_target_test_anomaly_0001_vel_12.wav\n"
        "section_00_0000.wav,section_00_target_test_normal_0000_vel_12.wav\n"
    )
}
LIST_2024 = (
    "AirCompressor\n"
    "section_00_0001.wav,section_00_source_test_normal_0001_noAttribute.wav\n"
    "RoboticArm\n"
    "section_00_0000.wav,section_00_source_normal_0035_weight15_BckgF.wav\n"
    "section_00_0003.wav,section_00_target_anomaly_0059_weight25_BckgE.wav\n"
)


@pytest.mark.parametrize("files", [EVALUATOR_2023, LIST_2023, EVALUATOR_2023 | LIST_2023])
def test_labels_of_2023_are_the_same_in_both_forms(tmp_path: Path, files: dict[str, str]) -> None:
    assert read_truth(write(tmp_path, files), 2023) == {
        ("bandsaw", "section_00_0000"): (0, "target"),
        ("bandsaw", "section_00_0001"): (1, "target"),
    }
    assert read_renamed(tmp_path, 2023) == {
        ("bandsaw", "section_00_target_test_normal_0000_vel_12"): "section_00_0000",
        ("bandsaw", "section_00_target_test_anomaly_0001_vel_12"): "section_00_0001",
    }


def test_names_of_2024_that_lack_the_split_are_read(tmp_path: Path) -> None:
    write(tmp_path, {"eval_data_list_2024.csv": LIST_2024})
    assert read_truth(tmp_path, 2024) == {
        ("AirCompressor", "section_00_0001"): (0, "source"),
        ("RoboticArm", "section_00_0000"): (0, "source"),
        ("RoboticArm", "section_00_0003"): (1, "target"),
    }
    name = parse_name(2024, "section_00_source_normal_0035_weight15_BckgF.wav")
    assert (name.split, name.label, name.number, name.attributes) == (None, 0, "0035", "weight15_BckgF")


def test_lists_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    wrong = {"eval_data_list.csv": LIST_2023["eval_data_list_2023.csv"].replace("anomaly", "normal")}
    with pytest.raises(BadInput, match=r"'section_00_0001.wav' of bandsaw is (0|1) here, but (0|1) in .*eval_data"):
        read_truth(write(tmp_path, EVALUATOR_2023 | wrong), 2023)


def test_the_list_of_2022_with_wrong_labels_is_refused(tmp_path: Path) -> None:
    published = {  # lines of datasets/eval_data_list_2022.csv in nttcslab/dcase2023_task2_baseline_ae
        "section_03_0166": "section_03_target_test_anomaly_0010_car_G2_spd_34V_mic_1_noise_6",
        "section_03_0167": "section_03_target_test_normal_0012_car_G2_spd_31V_mic_1_noise_6",
        "section_03_0168": "section_03_target_test_anomaly_0030_car_G1_spd_34V_mic_1_noise_6",
        "section_04_0000": "section_04_source_test_anomaly_0036_car_F2_spd_31V_mic_1_noise_6",
        "section_04_0007": "section_04_target_test_anomaly_0015_car_F1_spd_28V_mic_1_noise_6",
        "section_04_0011": "section_04_source_test_anomaly_0032_car_F2_spd_31V_mic_1_noise_6",
    }
    lines = "".join(f"{bare}.wav,{labelled}.wav\n" for bare, labelled in published.items())
    write(tmp_path, {"eval_data_list_2022.csv": f"ToyCar\n{lines}"})
    with pytest.raises(BadInput, match=r"eval_data_list_2022.csv: .* wrong labels of ToyCar and ToyTrain; instead"):
        read_truth(tmp_path, 2022)


def test_what_the_refused_list_says_is_wrong(shared_dir: Path) -> None:
    truth = read_truth(shared_dir / "official/dcase2022_eval", 2022)
    said = {
        "section_03_0166": (1, "target"),
        "section_03_0167": (0, "target"),
        "section_03_0168": (1, "target"),
        "section_04_0000": (1, "source"),
        "section_04_0007": (1, "target"),
        "section_04_0011": (1, "source"),
    }
    assert all(truth["ToyCar", name][0] != label for name, (label, _) in said.items())
