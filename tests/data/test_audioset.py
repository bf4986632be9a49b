"""Corpora to pre-train on: what there is of AudioSet's lists, by whatever names, and folders of recordings."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from raysd.data.audioset import AudioSet, Folder
from raysd.data.store import open_store
from raysd.errors import BadInput

BALANCED = """\
# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=8, num_segs=8, num_unique_labels=3, num_positive_labels=9
# YTID, start_seconds, end_seconds, positive_labels
-0RWZT-miFs, 420.000, 430.000, "/m/fan,/m/drill"
--PJHxphWEs, 30.000, 40.000, "/m/fan"
YabcdefghiJ, 0.000, 10.000, "/m/speech"
__abcdefghi, 12.500, 22.500, "/m/drill"
abcdefghij_, 30.000, 40.000, "/m/speech"
abcdefghijK, 50.000, 60.000, "/m/speech"
abcdefghijL, 60.000, 70.000, "/m/speech"
missing-one, 10.000, 20.000, "/m/fan"
"""
UNBALANCED = """\
# Segments csv created Sun Mar  5 10:54:25 2017
# num_ytids=2, num_segs=2, num_unique_labels=1, num_positive_labels=2
# YTID, start_seconds, end_seconds, positive_labels
abcdefghijM, 5.000, 15.000, "/m/fan"
missing-two, 10.000, 20.000, "/m/fan"
"""
LABELS = 'index,mid,display_name\n0,/m/fan,"Mechanical fan"\n1,/m/drill,"Drill, dental"\n2,/m/speech,"Speech"\n'
ONTOLOGY = [{"id": "/m/tool", "child_ids": ["/m/power"]}, {"id": "/m/power", "child_ids": ["/m/drill"]}]
# as downloaders name them: what is named, and of which segment of the balanced list it is
NAMES = {
    "wav/-0RWZT-miFs.wav": 0,
    "wav/Y--PJHxphWEs.wav": 1,
    "YabcdefghiJ_0_10.flac": 2,
    "flac/a/__abcdefghi_12500_22500.flac": 3,
    "flac/Yabcdefghij__30.000.ogg": 4,
    "abcdefghijK_50.WAV": 5,
    "abcdefghijL_60000.wav": 6,
}
STRANGERS = ["abcdefghijK_90.wav", "zzzzzzzzzzz.wav", "abcdefghijK.m4a", "noise.wav", ".hidden/missing-one.wav"]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Puts a short recording somewhere."""
    rng = np.random.default_rng(0)

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".m4a":
            path.write_bytes(b"no sound")
        else:
            kind = {".ogg": "OGG", ".flac": "FLAC"}.get(path.suffix, "WAV")
            sf.write(path, 0.1 * rng.standard_normal((4000, 2)), 16000, format=kind)

    return write


@pytest.fixture
def root(tmp_path: Path, write: Callable[[Path], None]) -> Path:
    for name in [*NAMES, *STRANGERS]:
        write(tmp_path / "audio" / name)
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "balanced_train_segments.csv").write_text(BALANCED)
    (tmp_path / "csv" / "unbalanced_train_segments.csv").write_text(UNBALANCED)
    (tmp_path / "csv" / "class_labels_indices.csv").write_text(LABELS)
    return tmp_path


def found(root: Path, corpus: AudioSet) -> set[str]:
    return {clip.path.removeprefix("audio/") for clip in corpus.survey(root).clips}


def test_clips_are_found_under_the_names_that_downloaders_give(root: Path) -> None:
    survey = AudioSet().survey(root)
    paths = [clip.path for clip in survey.clips]
    assert paths == sorted(f"audio/{name}" for name in NAMES)
    assert [str(one) for one in survey.lists] == ["7 of 8 clips of balanced_train_segments.csv are there; 1 missing"]


def test_lists_are_united_and_counted_apart(root: Path, write: Callable[[Path], None]) -> None:
    write(root / "more" / "YabcdefghijM.wav")
    corpus = AudioSet(lists=("unbalanced_train_segments.csv", "balanced_train_segments.csv"))
    survey = corpus.survey(root)
    assert len(survey.clips) == 8
    assert [(one.wanted, one.there, one.missing) for one in survey.lists] == [(2, 1, 1), (8, 7, 1)]
    assert [clip.path for clip in AudioSet(lists=corpus.lists[:1]).survey(root).clips] == ["more/YabcdefghijM.wav"]


def test_a_clip_that_is_there_twice_counts_once(root: Path, write: Callable[[Path], None]) -> None:
    write(root / "again" / "Y-0RWZT-miFs.wav")
    paths = {clip.path for clip in AudioSet().survey(root).clips}
    assert len(paths) == len(NAMES)
    assert "again/Y-0RWZT-miFs.wav" in paths


@pytest.mark.parametrize(
    ("classes", "children", "segments", "missing"),
    [
        (("Mechanical fan",), False, {0, 1}, 1),
        (("/m/fan", "Drill, dental"), False, {0, 1, 3}, 1),
        (("/m/tool",), True, {0, 3}, 0),
        (("Speech", "/m/power"), True, {0, 2, 3, 4, 5, 6}, 0),
    ],
)
def test_only_some_classes(
    classes: tuple[str, ...], children: bool, segments: set[int], missing: int, root: Path
) -> None:
    (root / "ontology.json").write_text(json.dumps(ONTOLOGY))
    corpus = AudioSet(classes=classes, children=children)
    assert found(root, corpus) == {name for name, number in NAMES.items() if number in segments}
    assert corpus.survey(root).lists[0].missing == missing


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lists": ("balanced_train.csv",)}, "did you mean 'balanced_train_segments.csv'"),
        ({"classes": ("Mechanical fans",)}, "did you mean 'Mechanical fan'"),
        ({"classes": ("/m/none",)}, "no clip of balanced_train_segments.csv is of one of them"),
        ({"classes": ("/m/fan",), "children": True}, "needs AudioSet's ontology.json"),
        ({"lists": ("class_labels_indices.csv",)}, "class_labels_indices.csv: line 1: expected a line such as"),
    ],
)
def test_what_cannot_be_is_one_line(settings: dict, said: str, root: Path) -> None:
    with pytest.raises(BadInput, match=said):
        AudioSet.model_validate(settings).survey(root)


def test_lists_without_any_clip_are_one_line(root: Path) -> None:
    corpus = AudioSet(lists=("unbalanced_train_segments.csv",))
    with pytest.raises(BadInput, match=r"^[^\n]*0 of 2 clips of unbalanced.* are there; 2 missing; expected [^\n]*$"):
        corpus.survey(root)


def test_ids_of_classes_need_no_table_of_names(root: Path) -> None:
    (root / "csv" / "class_labels_indices.csv").unlink()
    assert len(AudioSet(classes=("/m/fan",)).survey(root).clips) == 2
    with pytest.raises(BadInput, match=r"no class_labels_indices.csv below it; put it there, or give ids"):
        AudioSet(classes=("Speech",)).survey(root)


def test_a_folder_is_all_that_is_in_it_and_a_link_is_followed_once(
    root: Path, tmp_path: Path, write: Callable[[Path], None], cache_dir: Path
) -> None:
    folder = tmp_path / "audio"
    write(tmp_path / "elsewhere" / "far.wav")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "wav" / "loop").symlink_to(folder)
    survey = Folder().survey(folder)
    paths = [clip.path for clip in survey.clips]
    assert paths == sorted(
        ["link/far.wav", *NAMES, *(name for name in STRANGERS if name[0] != "." and "m4a" not in name)]
    )
    store = open_store(folder, survey, cache_dir)
    assert list(store.clips["path"]) == paths
    assert store.data.channel == "mean"
    empty = tmp_path / "csv"
    with pytest.raises(BadInput, match="no wav, flac, ogg file"):
        Folder().survey(empty)
