"""The folder in which the clips that a trial ranked most wrong are listened to, written by the command line."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from raysd import listening
from raysd.recipe import NUMERICS, recipe_key
from raysd.results.store import Record, Results
from raysd.study.design import load_study, trials_of

Command = Callable[..., tuple[int, str, str]]
NOW = datetime(2024, 3, 1, tzinfo=UTC)
STUDY = """
question: "?"
baseline: recipe.yaml
design: list
seeds: [7, 5, 2]
variants: { short: { train.epochs: 1 } }
"""
SCORES = {"normal_0": 0.1, "normal_1": 0.2, "normal_2": 0.9, "anomaly_0": 0.15, "anomaly_1": 0.8, "anomaly_2": 1.0}


class Page(HTMLParser):
    """What the page refers to, in order, and what it says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.players: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [str(given[name]) for name in ("src", "href") if name in given]
        if tag in ("img", "audio"):
            (self.pictures if tag == "img" else self.players).append(given)

    def handle_data(self, data: str) -> None:
        self.text += " " + " ".join(data.split())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A study, its baseline finished with two of three seeds, and its clips: one stereo, one gone."""
    study = tmp_path / "study.yaml"
    (tmp_path / "recipe.yaml").write_text("features: { num_bands: 16 }\n", encoding="utf-8")
    study.write_text(STUDY, encoding="utf-8")
    folder, rng = tmp_path / "data" / "dev_data" / "fan" / "test", np.random.default_rng(0)
    folder.mkdir(parents=True)
    clips = []
    for name, score in SCORES.items():
        kind, number = name.split("_")
        path = folder / f"{kind}_id_00_0000000{number}.wav"
        wave = 0.1 * rng.standard_normal((8000, 2 if name == "anomaly_0" else 1))
        if name != "anomaly_1":
            sf.write(path, wave, 16000)
        about = {"machine": "fan", "section": "00", "part": "dev", "split": "test", "domain": None, "score": score}
        clips.append(about | {"path": path.relative_to(tmp_path / "data").as_posix(), "label": int(kind == "anomaly")})
    clips.append({**clips[0], "path": "../../etc/normal_id_00_00000009.wav", "score": 0.99})
    for trial in trials_of(load_study(study), "d"):
        if trial.role == "baseline" and trial.seed != 7:
            Results(tmp_path / "results").write(
                Record(
                    **{name: getattr(trial, name) for name in ("key", "training_key", "variant", "seed")},
                    **{"recipe_key": recipe_key(trial.recipe), "numerics": NUMERICS, "study": "study", "profile": None},
                    **{"year": 2020, "data_fingerprint": "d", "recipe": trial.recipe.model_dump_json()},
                    **{"started": NOW, "finished": NOW, "train_seconds": 0.0, "total_seconds": 0.0},
                    provenance=json.dumps({}),
                    scores=clips,
                )
            )
    return tmp_path


def options(place: Path, *more: object) -> list[object]:
    return ["report", place / "study.yaml", "--results", place / "results", "--cache", place / "cache", *more]


def test_the_page_lets_the_most_wrong_clips_be_heard(place: Path, raysd: Command) -> None:
    folder, data = place / "new" / "listen", place / "data"
    status, _, err = raysd(*options(place, "--data-root", data, "--listen", folder))
    assert (status, "baseline, seed 5" in err) == (0, True), err  # the first seed that is finished
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    order = re.findall(r"(?:normal|anomaly)_id_00_\d+\.wav", page.text)
    names = ["normal_id_00_00000001.wav", "normal_id_00_00000009.wav", "normal_id_00_00000002.wav"]
    assert order == [*names, "normal_id_00_00000001.wav", "anomaly_id_00_00000000.wav", "anomaly_id_00_00000001.wav"]
    assert "normal, score 0.9, rank 3 of 7: 2 of 3 anomalies below it" in page.text
    assert "is to choose on test labels" in page.text
    assert page.text.count("not at hand: no such file below the data root") == 2  # the one outside is not looked for
    assert "not compared with those that were scored" in page.text

    relative = [link for link in page.links if not link.startswith(("#", "data:,"))]
    assert {*relative, "index.html"} == {path.name for path in folder.iterdir()}
    assert len(page.players) == len(page.pictures) == 4
    assert all("Log-mel spectrogram, 0.5 seconds" in str(one["alt"]) for one in page.pictures)
    mono, stereo = (folder / str(page.players[i]["src"]) for i in (1, 3))
    heard = data / "dev_data" / "fan" / "test"
    assert mono.read_bytes() == (heard / "normal_id_00_00000002.wav").read_bytes()
    assert sf.info(stereo).channels == 1
    np.testing.assert_array_equal(sf.read(stereo)[0], sf.read(heard / "anomaly_id_00_00000000.wav")[0][:, 0])
    assert "channel 0 of 2, written as 16-bit wav" in page.text

    status, _, err = raysd(*options(place, "--listen", folder))  # in the place of the one before
    assert status == 0, err
    assert [path.name for path in folder.iterdir()] == ["index.html"]
    assert "Audio: not at hand; give --data-root" in (folder / "index.html").read_text(encoding="utf-8")
    assert [path.name for path in folder.parent.iterdir()] == ["listen"]


def test_what_is_there_stays_where_no_page_can_be_made(
    place: Path, raysd: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, page, data = place / "own", place / "page", place / "data"
    own.mkdir()
    (own / "clip-001.wav").write_text("mine")
    assert raysd(*options(place, "--listen", page))[0] == 0
    written = (page / "index.html").read_bytes()
    (key,) = (row["key"] for row in Results(place / "results").rows(["key", "seed"]) if row["seed"] == 2)
    (place / "empty").mkdir()
    for words, said in {
        ("--listen", own): "own: holds clip-001.wav, which is no part of a listening page; give a new folder",
        ("--listen", place / "study.yaml"): "no folder that can be read",
        ("--listen", page, "--data-root", place / "empty"): "none of the clips of trial",
        ("--listen", page, "--trial", "nothing"): "no trial with a key that starts with 'nothing'",
        ("--listen", page, "--to", page): "--listen writes no report; give one of them",
        ("--trial", key): "give both, or neither",
        ("--listen", page, "--seeds", "7"): "the baseline of study study is not finished; first: raysd run study",
    }.items():
        status, _, err = raysd(*options(place, *words))
        assert (status, said in " ".join(err.split())) == (2, True), err
    with monkeypatch.context() as patch:
        patch.setattr(listening, "picture", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            raysd(*options(place, "--listen", page, "--data-root", data, "--trial", key))
    assert (page / "index.html").read_bytes() == written
    assert [path.name for path in own.iterdir()] == ["clip-001.wav"]
    assert not list(place.glob(".*"))
    assert raysd(*options(place, "--listen", page, "--data-root", data, "--trial", key))[0] == 0
    assert "baseline, seed 2" in (page / "index.html").read_text(encoding="utf-8")
