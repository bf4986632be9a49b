"""Names of clips: what the grammar writes it reads back; whatever else a folder holds is read in one way, or told."""

from pathlib import Path
from tempfile import TemporaryDirectory

from fuzzing import examples, in_bounded_time, is_one_line
from hypothesis import example, given
from hypothesis import strategies as st

from raysd.data.layouts import scan
from raysd.data.verify import verify
from raysd.data.years import (
    EXTENSIONS,
    YEARS,
    Domain,
    Label,
    Name,
    Split,
    clip_name,
    match_name,
    parse_attributes,
    parse_name,
    stem,
    truth_name,
)
from raysd.errors import BadInput

REAL = {
    2020: ["normal_id_01_00000000.wav", "anomaly_id_06_00000123.wav", "id_05_00000412.wav"],
    2021: [
        "section_00_source_train_normal_0000_strength_1_ambient.wav",
        "section_02_target_test_anomaly_0099_A1Spd28VMic1.wav",
        "section_04_source_test_0123.wav",
    ],
    2022: [
        "section_00_target_test_anomaly_0049_vel_490_ac_0.05.wav",
        "section_01_source_train_normal_0012_car_C2_spd_34V_mic_1.wav",
        "section_03_test_0000.wav",
        "section_03_0000.wav",
    ],
    2023: ["section_00_source_train_normal_0000_noAttributes.wav", "section_00_0199.wav"],
    2024: [
        "section_00_target_train_normal_0009_noAttribute.wav",
        "section_00_source_normal_0035_weight15_BckgF.wav",
        "section_00_0003.wav",
    ],
}
years = st.sampled_from(sorted(YEARS))
PIECES = st.one_of(
    st.sampled_from(["_", "__", ".", ".wav", ".WAV", ".flac", "section", "section_00_", "id", "id_00_", "Normal"]),
    st.sampled_from(["normal", "anomaly", "source", "target", "train", "test", "SECTION", "%00", "..", "1e3", "a"]),
    st.sampled_from(["0", "00", "\uff10\uff11", "\u0663", "-", " ", "\t", "\n", "\0", "/", "\\", "\u00e9", "e\u0301"]),
    st.sampled_from(["\u202e", "\u2028", "\x85", "\udcff", "\U0001f40d", "\u017f"]),
)


def words_of(number: int) -> st.SearchStrategy[str]:
    return st.from_regex(rf"[0-9]{{{number}}}", fullmatch=True)


ATTRIBUTES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=25)
extensions = st.sampled_from([*EXTENSIONS, "WAV", "Flac"])
numbers = st.from_regex(r"[0-9]{1,12}", fullmatch=True)


DOMAINS: list[Domain] = ["source", "target"]
LABELS: list[Label | None] = [0, 1, None]
SPLITS: list[Split | None] = [None, "train", "test"]


@st.composite
def names(draw: st.DrawFn) -> tuple[int, Name]:
    """A year, and whatever its grammar has a name for."""
    year = draw(years)
    section, number, extension = draw(words_of(2)), draw(numbers), draw(extensions)
    if not YEARS[year].domains:
        return year, Name(section, number, draw(st.sampled_from(LABELS)), extension=extension)
    domain: Domain | None = draw(st.sampled_from(DOMAINS))
    label: Label | None = draw(st.sampled_from(LABELS))
    if label is not None:
        split: Split | None = draw(st.sampled_from(SPLITS))
        return year, Name(section, number, label, domain, split, draw(ATTRIBUTES), extension)
    of_domain, of_test = draw(st.booleans()), draw(st.booleans())
    return year, Name(section, number, None, domain if of_domain else None, "test" if of_test else None, "", extension)


@examples(30)
@given(names())
def test_what_the_grammar_writes_is_read_back(case: tuple[int, Name]) -> None:
    year, name = case
    written = clip_name(year, name)
    assert parse_name(year, written) == name
    assert stem(written) == written.rpartition(".")[0]
    assert truth_name(truth_name(written)) == truth_name(written)


def is_read_in_one_way(year: int, text: str) -> None:
    """Whether a name is refused in one line, or means one clip: the one whose name is this text."""
    try:
        name = parse_name(year, text)
    except BadInput as error:
        refused = error
    else:
        assert clip_name(year, name) == text
        assert sum(pattern.fullmatch(text) is not None for pattern in YEARS[year].patterns) == 1
        assert text.isprintable() or not any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in text)
        words = [word for pair in parse_attributes(name.attributes) for word in pair]
        assert not words or "_".join(words).rstrip("_") == name.attributes.rstrip("_")
        return
    assert is_one_line(refused)
    assert str(year) in str(refused)


@examples(30)
@given(years, st.text(max_size=60) | st.lists(PIECES, max_size=14).map("".join))
@example(2022, "section_00_source_train_normal_0000_a\x85b.wav")
@example(2022, "section_00_source_train_normal_0000_\udcff.wav")
@example(2022, "section_00_source_train_normal_0000_a\n.wav")
def test_any_text_is_read_in_one_way_or_refused(year: int, text: str) -> None:
    is_read_in_one_way(year, text)


def changed(name: str, edits: list[tuple[str, int, str]]) -> str:
    for how, where, piece in edits:
        at, words = where % (len(name) + 1), name.split("_")
        match how:
            case "insert":
                name = name[:at] + piece + name[at:]
            case "delete":
                name = name[:at] + name[at + 1 :]
            case "replace":
                name = name[:at] + piece + name[at + len(piece) :]
            case "drop":
                name = "_".join(words[: where % len(words)] + words[where % len(words) + 1 :])
            case "double":
                name = "_".join([*words[: where % len(words) + 1], *words[where % len(words) :]])
            case "case":
                name = name[:at].upper() + name[at:]
    return name


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace", "drop", "double", "case"]), st.integers(0, 10**4), PIECES
    ),
    max_size=3,
)


@examples(30)
@given(years, st.integers(0, 10), EDITS)
def test_changed_real_names_are_read_in_one_way_or_refused(year: int, number: int, edits: list) -> None:
    for other in YEARS:
        is_read_in_one_way(other, changed(REAL[year][number % len(REAL[year])], edits))


@examples(3)
@given(years, st.lists(st.tuples(st.booleans(), st.integers(0, 10), EDITS), min_size=1, max_size=3))
@example(2020, [(False, 0, [("case", 10**4 - 4, "")])])
def test_a_folder_of_names_is_listed_whole_or_refused(year: int, more: list[tuple[bool, int, list]]) -> None:
    """None is passed over in silence, but for what is hidden or named as no audio; none is taken twice."""
    first = {2020: ("normal_id_01_00000009.wav", "anomaly_id_01_00000009.wav")}.get(
        year, ("section_00_source_train_normal_0099_x.wav", "section_00_source_test_anomaly_0099_x.wav")
    )
    with TemporaryDirectory() as folder, in_bounded_time():
        root, expected = Path(folder), set[str]()
        odd = [(is_train, changed(REAL[year][number % len(REAL[year])], edits)) for is_train, number, edits in more]
        for is_train, name in [(True, first[0]), (False, first[1]), *odd]:
            place = root / "dev_data" / "fan" / ("train" if is_train else YEARS[year].test_folders[0])
            place.mkdir(parents=True, exist_ok=True)
            if "/" in name or "\0" in name or name in ("", ".", ".."):
                continue
            try:
                (place / name).write_bytes(b"")
            except OSError:  # no file system has such a name
                continue
            if name.lower().endswith(tuple(f".{kind}" for kind in EXTENSIONS)) and not name.startswith((".", "__")):
                expected.add(f"{place.relative_to(root).as_posix()}/{name}")
        told = [found for found in verify(root, year).findings if found.kind == "misnamed"]
        listed = {file for found in told for file, _ in found.files}
        assert listed >= {path for path in expected if match_name(YEARS[year], path.rpartition("/")[2]) is None}
        try:
            clips = scan(root, year)
        except BadInput as error:
            refused = error
        else:
            assert {clip.path for clip in clips} == expected
            assert not listed
            for clip in clips:
                name = match_name(YEARS[year], Path(clip.path).name)
                assert name is not None
                assert (clip.section, clip.label, clip.domain) == (name.section, name.label, name.domain)
            stems = [(clip.split, truth_name(Path(clip.path).name)) for clip in clips]
            assert len(set(stems)) == len(stems)
            return
        assert is_one_line(refused)
        assert str(root) in str(refused)
