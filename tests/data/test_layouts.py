"""Names of clips, folders of clips and the official lists of labels."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysd.data.layouts import (
    YEARS,
    Clip,
    Label,
    Name,
    Split,
    clip_name,
    clip_path,
    parse_attributes,
    parse_name,
    read_attributes,
    read_truth,
    scan,
    truth_name,
)
from raysd.errors import BadInput

two_digits = st.from_regex(r"[0-9]{2}", fullmatch=True)
digits = st.from_regex(r"[0-9]{1,8}", fullmatch=True)
extensions = st.sampled_from(["wav", "flac", "ogg", "WAV"])
raw_attributes = st.one_of(
    st.sampled_from(["", "vel_490_ac_0.05", "car_C2_spd_34V_mic_1", "m-n_X", "pat_02", "noAttributes", "a__b_"]),
    st.text(st.characters(blacklist_characters="/\n", blacklist_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20),
)
id_names = st.builds(Name, two_digits, digits, st.sampled_from([0, 1, None]), extension=extensions)
section_names = st.one_of(
    st.builds(
        Name,
        two_digits,
        digits,
        st.sampled_from([0, 1]),
        st.sampled_from(["source", "target"]),
        st.sampled_from(["train", "test"]),
        raw_attributes,
        extensions,
    ),
    st.builds(
        Name,
        two_digits,
        digits,
        domain=st.sampled_from([None, "source", "target"]),
        split=st.sampled_from([None, "test"]),
        extension=extensions,
    ),
)


@given(id_names)
def test_names_of_2020_round_trip(name: Name) -> None:
    assert parse_name(2020, clip_name(2020, name)) == name


@given(st.sampled_from([2021, 2022, 2023, 2024]), section_names)
def test_names_of_later_years_round_trip(year: int, name: Name) -> None:
    assert parse_name(year, clip_name(year, name)) == name


@given(raw_attributes)
def test_attributes_keep_their_raw_form(raw: str) -> None:
    pairs = parse_attributes(raw)
    words = [word for pair in pairs for word in pair]
    odd = len(raw.split("_")) % 2
    assert not pairs or "_".join(words[:-1] if odd else words) == raw


@pytest.mark.parametrize(
    ("year", "file_name", "name"),
    [
        (2020, "normal_id_01_00000000.wav", Name("01", "00000000", 0)),
        (2020, "anomaly_id_06_00000123.flac", Name("06", "00000123", 1, extension="flac")),
        (2020, "id_01_00000000.wav", Name("01", "00000000")),
        (2021, "section_03_source_test_0000.wav", Name("03", "0000", None, "source", "test")),
        (
            2022,
            "section_00_target_test_anomaly_0049_vel_490_ac_0.05.wav",
            Name("00", "0049", 1, "target", "test", "vel_490_ac_0.05"),
        ),
        (2022, "section_03_test_0000.wav", Name("03", "0000", None, None, "test")),
        (2022, "section_03_0000.ogg", Name("03", "0000", extension="ogg")),
    ],
)
def test_official_names_are_read(year: int, file_name: str, name: Name) -> None:
    assert parse_name(year, file_name) == name


@pytest.mark.parametrize(
    ("raw", "pairs"),
    [
        ("vel_490_ac_0.05", (("vel", "490"), ("ac", "0.05"))),
        ("car_C2_spd_34V_mic_1", (("car", "C2"), ("spd", "34V"), ("mic", "1"))),
        ("m-n_X", (("m-n", "X"),)),
        ("pat_02", (("pat", "02"),)),
        ("noAttributes", ()),
        ("noAttribute", ()),
        ("", ()),
        ("strength_1_ambient", (("strength", "1"), ("ambient", ""))),
    ],
)
def test_attributes_are_pairs(raw: str, pairs: tuple[tuple[str, str], ...]) -> None:
    assert parse_attributes(raw) == pairs


def test_a_name_of_another_year_says_which() -> None:
    with pytest.raises(BadInput, match=r"'id_01_00000000.wav' .* names of 2022.*section_00.*it fits 2020"):
        parse_name(2022, "id_01_00000000.wav")
    with pytest.raises(BadInput, match=r"normal_id_01_00000000.wav or id_01_00000000.wav$"):
        parse_name(2020, "hello.wav")


@pytest.mark.parametrize("year", YEARS)
def test_every_year_is_whole(year: int) -> None:
    row = YEARS[year]
    assert row.number == year
    for dev, evaluation in row.machines.values():
        assert dev or evaluation
        assert not set(dev) & set(evaluation)
    for example in row.examples:
        assert clip_name(year, parse_name(year, example)) == example
    assert row.domains == any("source" in metric for metric in row.score_metrics)


@pytest.mark.parametrize(
    ("year", "machines", "dev", "evaluation"),
    [(2020, 6, 23, 18), (2021, 7, 21, 21), (2022, 7, 21, 21), (2023, 14, 7, 7), (2024, 16, 7, 9)],
)
def test_sections_are_as_many_as_published(year: int, machines: int, dev: int, evaluation: int) -> None:
    table = YEARS[year].machines
    assert len(table) == machines
    assert sum(len(sections[0]) for sections in table.values()) == dev
    assert sum(len(sections[1]) for sections in table.values()) == evaluation


def lay_out(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


FAN = ("dev_data/fan/train/normal_id_00_00000000.wav", "dev_data/fan/test/anomaly_id_00_00000000.wav")
FAN_EVAL = ("eval_data/fan/train/normal_id_01_00000000.wav", "eval_data/fan/test/id_01_00000000.wav")


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([2020, 2021, 2022]),
    st.dictionaries(two_digits, st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3),
)
def test_clips_to_folder_and_back(
    tmp_path_factory: pytest.TempPathFactory, year: int, sections: dict[str, tuple[int, int]]
) -> None:
    root = tmp_path_factory.mktemp("data")
    domain = "target" if YEARS[year].domains else None
    clips = []
    for section, (train, test) in sections.items():
        kinds: list[tuple[Split, Label, int]] = [("train", 0, train), ("test", 1, test)]
        for split, label, count in kinds:
            for number in range(count):
                name = Name(section, f"{number:04d}", label)
                if domain:
                    name = Name(section, f"{number:04d}", label, domain, split, "pat_02")
                pairs = parse_attributes(name.attributes)
                path = clip_path(year, "dev", "fan", split, name)
                clips.append(Clip(path, "fan", section, "dev", split, domain, label, pairs))
    assert scan(lay_out(root, *(clip.path for clip in clips)), year) == sorted(clips, key=lambda clip: clip.path)
    shutil.rmtree(root)


def test_additional_data_only_on_demand(tmp_path: Path) -> None:
    lay_out(tmp_path, *FAN, *FAN_EVAL)
    assert [clip.path for clip in scan(tmp_path, 2020)] == sorted(FAN)
    both = scan(tmp_path, 2020, additional=True)
    assert [clip.path for clip in both] == sorted([*FAN, *FAN_EVAL])
    assert {clip.path: (clip.part, clip.label) for clip in both}[FAN_EVAL[1]] == ("eval", None)


def test_additional_training_data_without_the_evaluation_test_data(tmp_path: Path) -> None:
    lay_out(tmp_path, *FAN, FAN_EVAL[0])
    assert len(scan(tmp_path, 2020, additional=True)) == 3


def test_a_root_that_holds_the_machines_itself(tmp_path: Path) -> None:
    lay_out(tmp_path, "pump7/train/normal_id_00_1.wav", "pump7/test/normal_id_00_2.wav", "notes/read.txt")
    assert [(clip.machine, clip.part, clip.split) for clip in scan(tmp_path, 2020)] == [
        ("pump7", "dev", "test"),
        ("pump7", "dev", "train"),
    ]


def test_test_folders_of_2021(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
        "dev_data/fan/train/section_00_source_train_normal_0000_strength_1_ambient.wav",
        "dev_data/fan/source_test/section_00_source_test_normal_0000.wav",
        "dev_data/fan/target_test/section_00_target_test_anomaly_0000.wav",
    )
    assert [(clip.split, clip.domain, clip.label) for clip in scan(tmp_path, 2021)] == [
        ("test", "source", 0),
        ("test", "target", 1),
        ("train", "source", 0),
    ]


def test_attributes_file_wins_over_the_name(tmp_path: Path) -> None:
    train = "section_00_source_train_normal_0000_noAttributes"
    test = "section_00_source_test_normal_0001_vel_0.05"
    lay_out(tmp_path, f"dev_data/fan/train/{train}.wav", f"dev_data/fan/test/{test}.wav")
    (tmp_path / "dev_data/fan/attributes_00.csv").write_text(
        f"file_name,d1p,d1v,d2p,d2v\nfan/train/{train}.wav,vel,8,f-n,A\nfan/test/other_0.05.wav,vel,9,,\n"
    )
    found = {clip.split: clip.attributes for clip in scan(tmp_path, 2022)}
    assert found == {"train": (("vel", "8"), ("f-n", "A")), "test": (("vel", "0.05"),)}
    assert read_attributes(tmp_path / "dev_data/fan/attributes_00.csv")["other_0.05"] == (("vel", "9"),)


def test_real_layouts(shared_dir: Path) -> None:
    valve = scan(shared_dir / "realdata/dcase2022_layout", 2022)
    counts = {
        (split, domain): sum((clip.split, clip.domain) == (split, domain) for clip in valve)
        for split in ("train", "test")
        for domain in ("source", "target")
    }
    assert len(valve) == 117
    assert counts[("train", "source")] == 25
    assert counts[("train", "target")] == 10
    assert sum(clip.label == 1 for clip in valve) == 50
    assert all(clip.attributes[0][0] == "pat" for clip in valve)
    samples = scan(shared_dir / "realdata/naming_samples", 2022)
    assert len(samples) == 24
    assert {clip.machine for clip in samples} == {"ToyCar", "ToyTrain", "bearing", "fan", "gearbox", "slider"}
    path = "dev_data/slider/train/section_00_source_train_normal_0959_vel_490_ac_0.05.wav"
    assert {clip.path: clip.attributes for clip in samples}[path] == (("vel", "490"), ("ac", "0.05"))
    only = scan(shared_dir / "realdata/naming_samples", 2022, machines=("fan", "slider"))
    assert {clip.machine for clip in only} == {"fan", "slider"}


def test_official_truth_lists(shared_dir: Path) -> None:
    of_2020 = read_truth(shared_dir / "official/dcase2020_eval", 2020)
    counts = {label: sum(found == (label, None) for found in of_2020.values()) for label in (0, 1)}
    assert sum(counts.values()) == len(of_2020)
    fan_01 = [label for (machine, name), (label, _) in of_2020.items() if machine == "fan" and name[:5] == "id_01"]
    assert (fan_01.count(0), fan_01.count(1)) == (100, 326)
    assert of_2020[("fan", "id_01_00000000")] == (0, None)
    of_2022 = read_truth(shared_dir / "official/dcase2022_eval", 2022)
    assert len(of_2022) == 7 * 600
    assert of_2022[("valve", "section_03_0000")][1] == "target"
    assert read_truth(shared_dir / "official/dcase2022_eval/ground_truth_data", 2022) == of_2022


@pytest.mark.parametrize("clip", ["section_03_0000", "section_03_test_0000"])
def test_truth_joins_by_file_name(tmp_path: Path, clip: str) -> None:
    train = "eval_data/fan/train/section_03_source_train_normal_0000_pat_00.wav"
    lay_out(tmp_path, train, f"eval_data/fan/test/{clip}.wav")
    for kind, value in (("data", 1), ("domain", 1)):
        path = tmp_path / f"truth/ground_truth_{kind}/ground_truth_fan_section_03_test.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"section_03_0000.wav,{value}\nsection_03_0001.wav,0\n")
    found = next(clip for clip in scan(tmp_path, 2022, additional=True) if clip.split == "test")
    assert (found.label, found.domain) == (1, "target")
    assert truth_name(f"{clip}.wav") == "section_03_0000"


def test_lists_with_labels_in_names(tmp_path: Path) -> None:
    path = tmp_path / "eval_data_list_2022.csv"
    path.write_text("\ufefffan\nsection_03_0000.wav,section_03_target_test_anomaly_0000_m-n_X.wav\n", encoding="utf-8")
    (tmp_path / "eval_data_list_2020.csv").write_text("fan\nid_01_00000000.wav,normal_id_01_00000098.wav,0\n")
    assert read_truth(tmp_path, 2022) == {("fan", "section_03_0000"): (1, "target")}
    assert read_truth(path, 2022) == read_truth(tmp_path, 2022)
    assert read_truth(tmp_path, 2020) == {("fan", "id_01_00000000"): (0, None)}
    assert read_truth(tmp_path, 2021) == {}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("eval_data_list.csv", "id_01_0.wav,normal_id_01_1.wav,0\n", "line 1: expected a machine's name"),
        ("eval_data_list.csv", "fan\nid_01_0.wav\n", "line 2: expected a machine's name"),
        ("eval_data_list.csv", "fan\nid_01_0.wav,normal_id_01_1.wav,1\n", "line 2: the label '1'"),
        ("eval_data_list.csv", "fan\nid_01_0.wav,id_01_1.wav,1\n", "line 2: expected"),
        ("eval_data_list.csv", "fan\n" + "id_01_0.wav,normal_id_01_1.wav,0\n" * 2, "line 3: .* named twice"),
        ("ground_truth_fan_section_03_test.csv", "section_03_0000.wav,2\n", "line 1: expected 'name,0'"),
        ("ground_truth_fan_section_03_test.csv", "section_03_0000.wav,1\n\nsection_03_test_0000.wav,1\n", "line 3: "),
        ("ground_truth_domain/ground_truth_fan_section_03_test.csv", "section_03_0000.wav,1\n", "not in ground_truth"),
    ],
)
def test_bad_lines_of_truth_lists_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    lay_out(tmp_path, name)
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=message) as error:
        read_truth(tmp_path, 2020)
    assert str(tmp_path) in str(error.value)


def test_a_truth_list_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "eval_data_list.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"eval_data_list.csv: cannot be read"):
        read_truth(tmp_path, 2020)
    with pytest.raises(BadInput, match="no such folder"):
        read_truth(tmp_path / "absent", 2020)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ((), r"not a data root: expected dev_data/<machine>/train .* found nothing$"),
        (("a.txt", "b/c.txt"), r"found a.txt, b$"),
        (("train/normal_id_00_0.wav", "test/normal_id_00_1.wav"), "folder of one machine: give the folder above"),
        (
            FAN[:1],
            r"machine 'fan' has no test clips: expected wav, flac or ogg files in dev_data/fan/test; found train",
        ),
        (FAN[1:], r"machine 'fan' has no train clips"),
        ((FAN[1], "dev_data/fan/train/a.mp3"), r"no train clips: .* found a.mp3"),
        ((*FAN, "dev_data/fan/test/normal_id_02_0.wav"), r"test clips of section 02 but no train clips"),
        ((*FAN, "dev_data/fan/train/normal_id_0.wav"), r"dev_data/fan/train: 'normal_id_0.wav' does not fit .* 2020"),
        ((*FAN, "dev_data/fan/train/section_00_0000.wav"), r"it fits 2021, 2022, 2023, 2024: set data.year"),
        ((*FAN, "dev_data/fan/train/anomaly_id_00_0.wav"), r"'anomaly_id_00_0.wav' is named as another kind of clip"),
    ],
)
def test_folders_that_cannot_be_read(tmp_path: Path, paths: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        scan(lay_out(tmp_path, *paths), 2020)
    assert str(tmp_path) in str(error.value)


def test_roots_and_machines_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder; expected dev_data"):
        scan(tmp_path / "absent", 2020)
    lay_out(tmp_path, *FAN, "file")
    with pytest.raises(BadInput, match="not a folder"):
        scan(tmp_path / "file", 2020)
    with pytest.raises(BadInput, match=r"machine 'fam' is not there; did you mean 'fan'\? allowed: fan"):
        scan(tmp_path, 2020, machines=("fam",))
    with pytest.raises(
        BadInput, match=r"data.additional needs eval_data/<machine>/train below it; found dev_data, file"
    ):
        scan(tmp_path, 2020, additional=True)


TRAIN_2023 = "section_00_source_train_normal_0000_vel_13.wav"
TREE_2023 = (
    f"dev_data/bearing/train/{TRAIN_2023}",
    "dev_data/bearing/test/section_00_target_test_anomaly_0000_vel_12.wav",
    f"eval_data/bandsaw/train/{TRAIN_2023}",
    "eval_data/bandsaw/test/section_00_0000.wav",
    "eval_data/bandsaw/test/section_00_0001.wav",
)
RENAMED_2023 = (
    "eval_data/bandsaw/test_rename/section_00_target_test_normal_0000_vel_12.wav",
    "eval_data/bandsaw/test_rename/section_00_source_test_anomaly_0001_vel_15.wav",
)
LIST_2023 = (
    "bandsaw\nsection_00_0000.wav,section_00_target_test_normal_0000_vel_12.wav\n"
    "section_00_0001.wav,section_00_source_test_anomaly_0001_vel_15.wav\n"
)


def kinds_of_tests(clips: list[Clip]) -> list[tuple[str, str, int | None, str | None]]:
    return [
        (clip.machine, Path(clip.path).parent.name, clip.label, clip.domain) for clip in clips if clip.split == "test"
    ]


@pytest.mark.parametrize("year", [2023, 2024])
def test_machines_of_eval_alone_with_a_truth_list(tmp_path: Path, year: int) -> None:
    machine = {2023: "bandsaw", 2024: "RoboticArm"}[year]
    lay_out(tmp_path, *(path.replace("bandsaw", machine) for path in TREE_2023))
    (tmp_path / f"eval_data_list_{year}.csv").write_text(LIST_2023.replace("bandsaw", machine))
    clips = scan(tmp_path, year, additional=True)
    assert sorted(kinds_of_tests(clips)) == [
        (machine, "test", 0, "target"),
        (machine, "test", 1, "source"),
        ("bearing", "test", 1, "target"),
    ]
    assert {clip.machine: (clip.part, clip.domain) for clip in clips if clip.split == "train"} == {
        machine: ("eval", "source"),
        "bearing": ("dev", "source"),
    }


def test_renamed_copies_are_preferred_and_never_counted_twice(tmp_path: Path) -> None:
    lay_out(tmp_path, *TREE_2023, *RENAMED_2023)
    (tmp_path / "eval_data_list_2023.csv").write_text(LIST_2023)
    assert [clip for clip in kinds_of_tests(scan(tmp_path, 2023, additional=True)) if clip[0] == "bandsaw"] == [
        ("bandsaw", "test_rename", 1, "source"),
        ("bandsaw", "test_rename", 0, "target"),
    ]
    (tmp_path / RENAMED_2023[0]).unlink()
    with pytest.raises(BadInput, match=r"test_rename: 1 clips, but it should hold copies of all 2 .*or delete it"):
        scan(tmp_path, 2023, additional=True)
    shutil.rmtree(tmp_path / "eval_data/bandsaw/test")
    assert ("bandsaw", "test_rename", 1, "source") in kinds_of_tests(scan(tmp_path, 2023, additional=True))


def test_renamed_copies_of_other_years(tmp_path: Path) -> None:
    arm = "section_00_source_normal_0035_weight15_BckgF.wav"  # without the split, as the list of 2024 has it
    lay_out(tmp_path / "a", TREE_2023[0].replace("bearing", "fan"), TREE_2023[1].replace("bearing", "fan"))
    lay_out(tmp_path / "a", f"eval_data/RoboticArm/train/{TRAIN_2023}", f"eval_data/RoboticArm/test_rename/{arm}")
    found = kinds_of_tests(scan(tmp_path / "a", 2024, additional=True))
    assert ("RoboticArm", "test_rename", 0, "source") in found
    lay_out(tmp_path / "b", *FAN, *FAN_EVAL, "eval_data/fan/test_rename/anomaly_id_01_00000017.wav")
    assert ("fan", "test_rename", 1, None) in kinds_of_tests(scan(tmp_path / "b", 2020, additional=True))


def test_additional_training_data_of_a_machine_without_its_test_data(tmp_path: Path) -> None:
    lay_out(tmp_path, *TREE_2023[:3])
    clips = scan(tmp_path, 2023, additional=True)
    assert [(clip.machine, clip.split) for clip in clips] == [
        ("bearing", "test"),
        ("bearing", "train"),
        ("bandsaw", "train"),
    ]


def test_the_folder_raw_of_the_organisers_repository(tmp_path: Path) -> None:
    paths = [path.replace("_data/", "_data/raw/") for path in (*TREE_2023, *RENAMED_2023)]
    lay_out(tmp_path, *paths)
    clips = scan(tmp_path, 2023, additional=True)
    assert {clip.machine for clip in clips} == {"bearing", "bandsaw"}
    assert {clip.path for clip in clips} == {path for path in paths if "/test/section_00_000" not in path}


def test_copies_of_2021_in_one_folder_count_once(tmp_path: Path) -> None:
    train, test = "section_00_source_train_normal_0000.wav", "section_00_source_test_normal_0000.wav"
    lay_out(tmp_path, f"dev_data/fan/train/{train}", f"dev_data/fan/source_test/{test}", f"dev_data/fan/test/{test}")
    assert kinds_of_tests(scan(tmp_path, 2021)) == [("fan", "source_test", 0, "source")]


def test_copies_with_labels_that_are_known_to_be_wrong_are_refused(tmp_path: Path) -> None:
    train, test = "section_03_source_train_normal_0000_car_F1.wav", "section_03_source_test_normal_0012_car_F1.wav"
    lay_out(tmp_path, f"eval_data/ToyCar/train/{train}", f"eval_data/ToyCar/test_rename/{test}")
    with pytest.raises(BadInput, match="list of 2022 whose labels of this machine are wrong; delete it"):
        scan(tmp_path, 2022, additional=True)
    (tmp_path / f"eval_data/ToyCar/test_rename/{test.replace('0012', '0112')}").touch()
    assert len(scan(tmp_path, 2022, additional=True)) == 3
