"""Score files and truth lists of any content: the metrics of what they say, or one line with the file; never others."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzzing import examples, in_bounded_time, is_one_line
from hypothesis import example, given
from hypothesis import strategies as st

from raysd.data.lists import read_truth
from raysd.data.years import truth_name
from raysd.detect.submission import evaluate_submission, read_decisions, read_scores
from raysd.errors import BadInput

Files = dict[str, bytes]


def submission(year: int) -> Files:
    """The files of a small submission and, but for 2021, of its truth: two sections, or machines of one each."""
    draws = random.Random(year)
    files: dict[str, list[str]] = {}
    for machine in ("fan", "ToyCar") if year == 2023 else ("fan",):
        for section in ("00",) if year == 2023 else ("01", "03"):
            for number in range(8):
                label, domain = number % 2, ("source", "target")[number // 4]
                score = f"{draws.gauss(label, 1):.6f}"
                decided = str(int(float(score) > 0.5))
                if year == 2020:
                    name, ending = f"id_{section}_{number:08d}.wav", f"{machine}_id_{section}.csv"
                    kind = ("normal", "anomaly")[label]
                    listed = files.setdefault("truth/eval_data_list.csv", [])
                    listed += [machine] if not number else []
                    listed.append(f"{name},{kind}_id_{section}_{number:08d}.wav,{label}")
                elif year == 2021:
                    kind = ("normal", "anomaly")[label]
                    name = f"section_{section}_{domain}_test_{kind}_{number:04d}_a_1.wav"
                    ending = f"{machine}_section_{section}_{domain}_test.csv"
                else:
                    name, ending = f"section_{section}_{number:04d}.wav", f"{machine}_section_{section}_test.csv"
                    for folder, value in (("data", label), ("domain", number // 4)):
                        listed = files.setdefault(f"truth/ground_truth_{folder}/ground_truth_{ending}", [])
                        listed.append(f"{name},{value}")
                files.setdefault(f"scores/anomaly_score_{ending}", []).append(f"{name},{score}")
                files.setdefault(f"scores/decision_result_{ending}", []).append(f"{name},{decided}")
    return {name: "".join(f"{line}\n" for line in lines).encode() for name, lines in files.items()}


WHOLE = {year: submission(year) for year in (2020, 2021, 2022, 2023)}
years = st.sampled_from(sorted(WHOLE))


def evaluated(year: int, files: Files) -> dict | BadInput:
    """The metrics of such files, or the one line that refuses them, which names one of them or its folder."""
    with TemporaryDirectory() as folder, in_bounded_time():
        root = Path(folder)
        (root / "scores").mkdir()
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        truth = root / "truth" if (root / "truth").is_dir() else None
        try:
            found = evaluate_submission(root / "scores", truth, year)
        except BadInput as error:
            refused = error
        else:
            assert not found.lacking or ", ".join(found.lacking) in found.as_markdown()
            _says_what_is_written(year, root, files)
            return found.as_dict()
        assert is_one_line(refused)
        assert str(root) in str(refused)
        return BadInput(str(refused).replace(str(root), ""))


def _says_what_is_written(year: int, root: Path, files: Files) -> None:
    """Every value that was read stands in some line of a file beside the clip's name; every clip is there once."""
    whole = {name: read_lines(WHOLE[year][name]) for name in WHOLE[year]}
    for kind, read in (("score", read_scores), ("decision", read_decisions)):
        prefix = {"score": "scores/anomaly_score", "decision": "scores/decision_result"}[kind]
        clips = read(root / "scores", year)
        if not len(clips) and kind == "decision":
            continue
        wanted = sum(len(lines) for name, lines in whole.items() if name.startswith(prefix))
        if year != 2021:  # else the clips' own names are all that tells which there should be
            assert len(clips) == wanted
        written = {line for name, content in files.items() if name.startswith(prefix) for line in read_lines(content)}
        for name, value in zip(clips["name"], clips[kind], strict=True):
            assert any(said == name and float(number) == value for said, number in written)
    if year != 2021:
        labels = read_truth(root / "truth", year)
        lines = [line for name, content in files.items() if name.startswith("truth/") for line in read_lines(content)]
        for (_, clip), (label, _) in labels.items():
            assert any(truth_name(line[0]) == clip and line[-1] == str(label) for line in lines)


def read_lines(content: bytes) -> list[tuple[str, str]]:
    """First and last cell of all lines, as one reads them: without quotes, folders and spaces of any kind."""
    lines = re.split(r"[\r\n]+", content.decode("utf-8", "replace").removeprefix("\ufeff"))
    cells = [[bare(cell) for cell in line.rstrip(" ,").split(",")] for line in lines if line.strip(" ,")]
    return [(bare(row[0].rpartition("/")[2]), row[-1]) for row in cells]


def bare(cell: str) -> str:
    return re.sub(r"^[\s\"']+|[\s\"']+$", "", cell)


# --- what changes nothing, and what makes it useless ------------------------------------------------------------------

HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda content: content,
    "CRLF": lambda content: content.replace(b"\n", b"\r\n"),
    "CR": lambda content: content.replace(b"\n", b"\r"),
    "BOM": lambda content: b"\xef\xbb\xbf" + content,
    "empty lines": lambda content: b"\n\n" + content.replace(b"\n", b"\n\n"),
    "no last line end": lambda content: content.rstrip(b"\n"),
    "quotes": lambda content: re.sub(rb"[^,\n]+", rb'"\g<0>"', content),
    "spaces": lambda content: content.replace(b",", b" , "),
    "another order": lambda content: b"".join(sorted(content.splitlines(keepends=True), reverse=True)),
    "folders": lambda content: re.sub(rb"(?m)^(?=.)", b"./test/", content),
}
USELESS: dict[str, Callable[[list[bytes], int], list[bytes]]] = {
    "a doubled line": lambda lines, at: [*lines[: at + 1], *lines[at:]],
    "a missing line": lambda lines, at: [*lines[:at], *lines[at + 1 :]],
    "a header": lambda lines, at: [b"file_name,value\n", *lines],
    "a word": lambda lines, at: changed(lines, at, b"high"),
    "nothing": lambda lines, at: changed(lines, at, b""),
    "nan": lambda lines, at: changed(lines, at, b"nan"),
    "inf": lambda lines, at: changed(lines, at, b"-Infinity"),
    "too large": lambda lines, at: changed(lines, at, b"1e999"),
    "a decimal comma": lambda lines, at: changed(lines, at, b"0,5"),
    "a quoted comma": lambda lines, at: changed(lines, at, b'"1,000"'),
    "an underscore": lambda lines, at: changed(lines, at, b"0_1"),
    "other digits": lambda lines, at: changed(lines, at, "\uff11".encode()),
    "an open quote": lambda lines, at: [*lines[:at], b'"' + lines[at], *lines[at + 1 :]],
    "an open number": lambda lines, at: changed(lines, at, b'"0'),
    "text after a quote": lambda lines, at: changed(lines, at, b'"0"1'),
    "a clip of another section": lambda lines, at: [*lines, re.sub(rb"_0[0-9]_", b"_06_", lines[at])],
    "one clip more": lambda lines, at: [*lines, re.sub(rb"_(0+)([0-9])(\.|_a)", rb"_\g<1>9\3", lines[at])],
    "the name doubled": lambda lines, at: [*lines, lines[at].replace(b".wav", b".flac")],
    "no name": lambda lines, at: [*lines, b",0\n"],
    "a folder alone": lambda lines, at: [*lines, b"./,0\n"],
    "a foreign name": lambda lines, at: [*lines, b"README,0\n"],
    "a training clip": lambda lines, at: [*lines, b"section_01_source_train_normal_0000_a.wav,0\n"],
    "none": lambda lines, at: [],
    "not UTF-8": lambda lines, at: [*lines, "é,0\n".encode("latin-1")],
    "UTF-16": lambda lines, at: ["".join(line.decode() for line in lines).encode("utf-16")],
    "NUL": lambda lines, at: [*lines[:at], lines[at].replace(b",", b"\0,"), *lines[at + 1 :]],
}
ALLOWED = {  # where nothing says which clips there should be
    ("a missing line", 2021, "scores"),
    ("one clip more", 2021, "scores"),
}


def changed(lines: list[bytes], at: int, value: bytes) -> list[bytes]:
    name = lines[at].partition(b",")[0]
    return [*lines[:at], name + b"," + value + b"\n", *lines[at + 1 :]]


@examples(2)
@given(years, st.lists(st.sampled_from(sorted(HARMLESS)), min_size=20, max_size=20))
def test_how_a_file_is_written_changes_no_number(year: int, ways: list[str]) -> None:
    files = {}
    for (name, content), way in zip(WHOLE[year].items(), [*ways, *ways], strict=False):
        if name.endswith("list.csv") and way in ("another order", "folders"):  # machines stand above their clips there
            way = "quotes"
        if name.startswith("truth") and way == "folders":
            way = "BOM"
        files[name] = HARMLESS[way](content)
    assert evaluated(year, files) == evaluated(year, WHOLE[year])


@examples(40)
@given(years, st.sampled_from(sorted(USELESS)), st.integers(0, 100), st.integers(0, 7))
@example(2021, "none", 0, 0)
@example(2022, "an underscore", 0, 0)
@example(2021, "a training clip", 0, 0)
def test_what_spoils_a_file_is_refused_with_its_name(year: int, what: str, number: int, at: int) -> None:
    files = dict(WHOLE[year])
    name = sorted(name for name in files if name.startswith("scores/"))[
        number % sum("scores" in name for name in files)
    ]
    lines = files[name].splitlines(keepends=True)
    files[name] = b"".join(USELESS[what](lines, at % len(lines)))
    refused = evaluated(year, files)
    if (what, year, name.partition("/")[0]) in ALLOWED and "decision" not in name and isinstance(refused, BadInput):
        assert "decision_result files do not fit" in str(refused)
    elif what not in (
        "a missing line",
        "one clip more",
        "a clip of another section",
        "a foreign name",
        "a training clip",
        "NUL",
    ):
        assert isinstance(refused, BadInput)
        assert Path(name).name in str(refused)
    assert isinstance(refused, BadInput)


# --- any bytes --------------------------------------------------------------------------------------------------------

TOKENS = st.one_of(
    st.sampled_from([b",", b'"', b"'", b"\n", b"\r", b"\0", b";", b" ", b"nan", b"1e5", b"-", b"\xff", b"_", b"/"]),
    st.sampled_from([b".wav", b"fan\n", b"section_03_0000.wav,0.5\n", b"id_01_00000000.wav,1\n", b"1", b"0"]),
    st.sampled_from([b"\xef\xbb\xbf", "\u2028".encode()]),
)
EDITS = st.lists(
    st.tuples(
        st.integers(0, 100),
        st.sampled_from(["insert", "delete", "replace", "flip", "line", "cut", "swap", "empty", "rename", "lose"]),
        st.integers(0, 10**5),
        TOKENS | st.binary(max_size=6),
    ),
    min_size=1,
    max_size=3,
)


@examples(15)
@given(years, EDITS)
@example(2021, [(0, "rename", 0, b".CSV")])
@example(2020, [(0, "insert", 0, "\u2028".encode())])  # a space, before the first name
def test_damaged_files_give_the_metrics_of_what_they_say_or_are_refused(
    year: int, edits: list[tuple[int, str, int, bytes]]
) -> None:
    files = dict(WHOLE[year])
    for which, how, where, token in edits:
        names = sorted(files)
        name, other = names[which % len(names)], names[(which // 3 + 1) % len(names)]
        content = files[name]
        at = where % (len(content) + 1)
        match how:
            case "insert":
                files[name] = content[:at] + token + content[at:]
            case "delete":
                files[name] = content[:at] + content[at + 1 + where % 9 :]
            case "replace":
                files[name] = content[:at] + token + content[at + len(token) :]
            case "flip" if at < len(content):
                files[name] = content[:at] + bytes([content[at] ^ 1 << where % 8]) + content[at + 1 :]
            case "line":
                lines = content.splitlines(keepends=True) or [b""]
                files[name] = content + lines[where % len(lines)]
            case "cut":
                files[name] = content[:at]
            case "swap":
                files[name], files[other] = files[other], content
            case "empty":
                files[name] = b""
            case "rename":
                ending = re.sub(r"[^\x21-\x7e]|/", "", token.decode("latin-1"))
                files[name.removesuffix(".csv") + (ending or ".CSV")] = files.pop(name)
            case "lose" if len(files) > 2:
                del files[name]
    evaluated(year, files)


@examples(12)
@given(years, st.binary(max_size=120) | st.lists(TOKENS, max_size=12).map(b"".join), st.integers(0, 100))
def test_any_bytes(year: int, content: bytes, number: int) -> None:
    name = sorted(WHOLE[year])[number % len(WHOLE[year])]
    evaluated(year, WHOLE[year] | {name: content})
