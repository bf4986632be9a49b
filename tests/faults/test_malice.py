"""Files that want to run code, to write where they should not, or to fill memory and disk."""

import io
import logging
import os
import pickle
import resource
import struct
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from raysd.data.archives import BadArchive, unpack
from raysd.errors import BadInput
from raysd.results.weights import read_weights, write_weights
from raysd.session import Session
from raysd.train import Epoch
from raysd.trial import run_trial

Run = Callable[..., tuple[int, str, str]]
Opened = Callable[[str | Path], Session]


@dataclass
class Harm:
    """What a pickle can do: a file named in it appears when it is loaded."""

    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def changed(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    whole, file = torch.load(io.BytesIO(content), weights_only=True), io.BytesIO()
    change(whole)
    torch.save(whole, file)
    return file.getvalue()


CHECKPOINTS: dict[str, Callable[[bytes, Path], bytes]] = {
    "a pickle": lambda content, harm: pickle.dumps(Harm(harm), protocol=2),
    "a pickle in torch's format": lambda content, harm: changed(content, lambda whole: whole.update(more=Harm(harm))),
    "cut off": lambda content, harm: content[: len(content) // 2],
    "empty": lambda content, harm: b"",
    "another history": lambda content, harm: changed(content, lambda whole: whole["history"][0].update(new=1.0)),
    "no history": lambda content, harm: changed(content, lambda whole: whole.pop("history")),
    "another tensor": lambda content, harm: changed(content, lambda whole: whole["state"].popitem()),
    "another shape": lambda content, harm: changed(
        content, lambda whole: whole["state"].update({name: value[None] for name, value in whole["state"].items()})
    ),
    "another optimiser": lambda content, harm: changed(content, lambda whole: whole["optimiser"]["param_groups"].pop()),
    "a list": lambda content, harm: changed(content, lambda whole: whole.update(state=[1, 2])),
}


QUICK = ("a pickle", "another history", "another tensor")
SLOW = tuple(kind for kind in CHECKPOINTS if kind not in QUICK)


@pytest.mark.parametrize("kinds", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)])
def test_a_checkpoint_that_cannot_be_used_is_not(
    opened: Opened, tmp_path: Path, caplog: pytest.LogCaptureFixture, kinds: tuple[str, ...]
) -> None:
    """Malicious, damaged or of another version: nothing of it is run or taken, and the training begins anew."""

    def interrupt(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    session = opened(tmp_path / "results")
    trial = session.missing()[0]
    with pytest.raises(KeyboardInterrupt):
        run_trial(trial, session.place(), interrupt)
    (path,) = (tmp_path / "results").glob("work/*/all.pt")
    content = path.read_bytes()
    expected: Any = None
    for kind in ("untouched", *kinds):
        made = CHECKPOINTS.get(kind, lambda content, harm: content)
        elsewhere = opened(tmp_path / kind.replace("'", ""))
        kept = elsewhere.results.checkpoint(trial.training_key, "all")
        kept.write(made(content, tmp_path / "harm"))
        epochs: list[int] = []
        caplog.clear()
        with caplog.at_level(logging.WARNING, "raysd"):
            record = run_trial(trial, elsewhere.place(), lambda epoch, epochs=epochs: epochs.append(epoch.epoch))
        expected = expected or list(record.scores)
        assert list(record.scores) == expected, kind
        assert epochs == ([2] if kind == "untouched" else [1, 2]), kind
        said = (
            "begins at its first epoch: its checkpoint is damaged, of another version of raysd, or holds Python objects"
        )
        assert [line.getMessage().startswith(said) for line in caplog.records] == [True] * (kind != "untouched"), kind
        assert elsewhere.results.checkpoints() == {}
        assert not (tmp_path / "harm").exists(), kind


def test_own_weights_that_were_replaced_by_a_pickle(opened: Opened, tmp_path: Path) -> None:
    results = opened(tmp_path / "results").results
    write_weights(results, "a" * 20, {"x": torch.ones(1)}, {"name": "own", "licence": "CC BY"})
    path = tmp_path / "results" / "pretrained" / f"{'a' * 20}.pt"
    for content in (pickle.dumps(Harm(tmp_path / "harm"), protocol=2), b"no weights", b""):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"pretrained/a{20}\.pt: not loaded: it holds Python objects, which can run"):
            read_weights(results, "a" * 20)
    assert not (tmp_path / "harm").exists()


def nested(first: str, entry: Callable[[int, str], str]) -> str:
    """Nine levels, each of ten of the one below: a thousand million of the first."""
    lines = [f"a0: &a0 {first}"]
    lines += [entry(level, ", ".join([f"*a{level - 1}"] * 10)) for level in range(1, 10)]
    return "\n".join(lines) + "\n"


BOMBS = {
    "lists": nested("[x, x]", lambda level, inner: f"a{level}: &a{level} [{inner}]"),
    "merged mappings": nested("{k: v}", lambda level, inner: f"a{level}: &a{level}\n  <<: [{inner}]"),
    "a circle": "a: &a [*a]\n",
    "levels": "a: " + "[" * 400 + "]" * 400 + "\n",
    "a long file": "a: [" + "x, " * 2**20 + "]\n",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_yaml_bomb_is_refused_before_it_is_unfolded(raysd: Run, opened: Opened, tmp_path: Path, kind: str) -> None:
    """In a study, in its recipe, in what it extends; in little time and memory."""
    opened(tmp_path / "results")
    text = (tmp_path / "study.yaml").read_text(encoding="utf-8")
    places = {
        "study": {"bomb.yaml": text + BOMBS[kind]},
        "recipe": {"bomb.yaml": text.replace("tiny.yaml", "recipe.yaml"), "recipe.yaml": BOMBS[kind]},
        "extended": {"bomb.yaml": "extends: other.yaml\n", "other.yaml": text + BOMBS[kind]},
    }
    for where, files in places.items():
        for name, content in files.items():
            (tmp_path / name).write_text(content, encoding="utf-8")
        began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        status, _, err = raysd("table", tmp_path / "bomb.yaml", "--results", tmp_path / "results")
        assert (status, err.count("\n")) == (2, 1), (where, err)
        assert err.startswith(f"raysd: {tmp_path}/"), err
        assert "not valid YAML: " in err, err
        assert time.process_time() - began < 10
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # kibibytes


def lying(path: Path) -> None:
    """An archive whose directory says that a large entry has ten bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("large.wav", bytes(50_000_000))
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 50_000_000), struct.pack("<I", 10)))


def test_an_archive_that_lies_about_its_size_fills_no_disk(tmp_path: Path) -> None:
    lying(tmp_path / "small.zip")
    with pytest.raises(BadArchive, match=r"small\.zip: cannot be read as a zip archive: Bad CRC-32"):
        unpack(tmp_path / "small.zip", tmp_path / "unpacked")
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.wav")) <= 10
