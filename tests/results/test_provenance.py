"""Where numbers come from: readable, repeatable, nothing secret."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import raysd
from raysd.results import provenance as module
from raysd.results.provenance import provenance


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package of one file at a place of its own; the code is asked for afresh."""
    folder = tmp_path / "raysd"
    folder.mkdir()
    (folder / "__init__.py").write_text("one = 1\n")
    monkeypatch.setattr(raysd, "__file__", str(folder / "__init__.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    module.code.cache_clear()
    yield folder
    module.code.cache_clear()


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


def code(folder: Path) -> tuple:
    module.code.cache_clear()
    found = provenance()
    return found["commit"], found["dirty"], found["diff_sha256"]


def test_it_is_plain_json_with_what_was_given() -> None:
    found = provenance(["a.wav"], ["raysd", "run"], "dev + additional")
    again = json.loads(json.dumps(found))
    assert again["skipped"] == ["a.wav"]
    assert again["command"] == ["raysd", "run"]
    assert again["train_sets"] == "dev + additional"
    assert again["checkpoint"] == "last epoch"
    assert again["packages"]["torch"]


def test_no_environment_variable_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "hunter2-secret")
    assert "hunter2-secret" not in json.dumps(provenance())


def test_outside_of_git_the_code_is_unknown(package: Path) -> None:
    assert code(package) == (None, None, None)


def test_code_that_was_sent_to_a_cluster_says_where_it_is_from(package: Path) -> None:
    (package / module.SHIPPED_CODE).write_text('{"commit": "1234", "dirty": true, "diff_sha256": "5678"}')
    assert code(package) == ("1234", True, "5678")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_in_a_checkout_the_commit_and_every_change_show(package: Path) -> None:
    git(package.parent, "init", "-q")
    assert code(package) == (None, None, None)  # no commit yet
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-qm", "x")
    commit, dirty, diff = code(package)
    assert (len(commit), dirty, diff) == (40, False, None)
    (package.parent / "notes.txt").write_text("beside the package")
    assert code(package) == (commit, False, None)
    (package / "__init__.py").write_text("one = 2\n")
    changed = code(package)
    assert changed[:2] == (commit, True)
    (package / "new.py").write_text("three = 3\n")
    more = code(package)
    assert more[1]
    assert len({changed[2], more[2], None}) == 3
    assert code(package) == more


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_an_installed_package_inside_another_repository_is_not_that_repository(package: Path) -> None:
    git(package.parent, "init", "-q")
    (package.parent / ".gitignore").write_text("raysd\n")
    git(package.parent, "add", ".gitignore")
    git(package.parent, "commit", "-qm", "x")
    assert code(package) == (None, None, None)


def test_a_command_is_kept_without_the_folders_of_its_paths() -> None:
    words = ["/home/someone/bin/raysd", "run", "augmentation", "--data-root=/mnt/data/dcase", "--set", "train.epochs=3"]
    kept = provenance(command=[*words, "--results", "/mnt/results"])["command"]
    assert kept == [
        "raysd",
        "run",
        "augmentation",
        "--data-root=dcase",
        "--set",
        "train.epochs=3",
        "--results",
        "results",
    ]


def test_a_command_is_kept_without_the_credentials_in_it() -> None:
    words = ["raysd", "run", "--results", "s3://key:hunter2@bucket/a", "--results=s3://key:hunter2@bucket/a?region=x"]
    kept = provenance(command=words)["command"]
    assert kept == ["raysd", "run", "--results", "s3://***@bucket/a", "--results=s3://***@bucket/a?region=x"]
