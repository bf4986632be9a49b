"""What the shell offers at TAB, asked for as bash and zsh ask for it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from raysd.completion import BROKEN, mend_bash_words
from raysd.study.places import predefined_studies

Offered = Callable[..., list[str]]


@pytest.fixture
def bash(raysd: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> Offered:
    """What bash gets for words as it breaks them, the last being the one that is completed."""

    def offered(*words: str) -> list[str]:
        monkeypatch.setenv(BROKEN, "")  # so that it is gone again after the test
        monkeypatch.setenv("_RAYSD_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(["raysd", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        status, out, err = raysd()
        assert (status, err) == (0, "")
        return out.split("\n")[:-1] if out.strip() else []

    return offered


@pytest.fixture
def zsh(raysd: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """What zsh gets for a line."""

    def offered(line: str) -> str:
        monkeypatch.setenv(BROKEN, "")
        monkeypatch.setenv("_RAYSD_COMPLETE", "complete_zsh")
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"raysd {line}")
        return raysd()[1]

    return offered


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two studies, of which one extends the other, and what is none."""
    files = {
        "base.yaml": {"train": {"epochs": 2}, "profiles": {"tiny": {}, "large": {}}},
        "mine.yaml": {"question": "Does it help?", "baseline": "base.yaml"},
        "more/longer.yaml": {"extends": "../mine.yaml"},
        "more/circle.yaml": {"extends": "circle.yaml"},
    }
    (tmp_path / "more").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("question: [", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_studies_by_name_and_by_file(bash: Offered, zsh: Callable[[str], str], folder: Path) -> None:
    assert bash("plan", "augm") == ["augmentation"]
    assert set(bash("run", "")) == {*predefined_studies(), "mine.yaml", "broken.yaml"}  # no recipe
    assert bash("table", "more/l") == ["more/longer.yaml"]
    assert bash("table", f"{folder}/mi") == [f"{folder}/mine.yaml"]
    assert bash("plan", "no-such") == []
    assert '"mine.yaml":"Does it help?"' in zsh("plan m")


def test_profiles_of_the_study_on_the_line(bash: Offered, folder: Path) -> None:
    assert bash("plan", "augmentation", "--profile", "") == ["cpu"]
    assert bash("plan", "mine.yaml", "--results", "x", "--profile", "") == ["tiny", "large"]
    assert bash("plan", "more/longer.yaml", "--profile", "la") == ["large"]
    assert bash("explain", "mine.yaml", ":", "baseline", "--profile", "t") == ["tiny"]
    for without in ("no-such", "more/circle.yaml", "broken.yaml"):
        assert bash("plan", without, "--profile", "") == []
    assert bash("plan", "--profile", "") == []


def test_settings_and_their_values(bash: Offered, zsh: Callable[[str], str]) -> None:
    """Bash breaks words at `=`, and replaces what stands behind it."""
    line = ("plan", "augmentation", "--set")
    assert bash(*line, "train.prec") == ["train.precision=bf16", "train.precision=fp32", "train.precision="]
    assert bash(*line, "train.precision", "=") == ["bf16", "fp32"]
    assert bash(*line, "train.precision", "=", "f") == ["fp32"]
    assert bash(*line, "train.epochs", "=") == ["50"]
    assert bash(*line, "augment.high_frequency", "=") == ["null"]
    assert bash(*line, "encoder.name", "=", "cn") == ["cnn"]
    assert bash(*line, "scale.wor") == ["scale.workers=1", "scale.workers="]
    assert {"train.epochs=", "train.ema=", "train.warmup_epochs="} <= set(bash(*line, "train."))
    assert not any(offer.startswith(("factors", "question")) for offer in bash(*line, ""))
    assert bash(*line, "train.epochs", "=", "2", "--set", "loss.classes", "=", "section_") == ["section_attributes"]
    assert bash(*line, "no.such", "=") == []
    offered = zsh("plan augmentation --set train.precision=f")
    assert '"train.precision=fp32":"bf16' in offered
    assert "\n" not in offered.strip()  # what is too long is not folded


def test_what_the_commands_offer_themselves_still_works(bash: Offered) -> None:
    assert bash("table", "augmentation", "--format", "ma") == ["markdown", "macros"]
    assert bash("table", "augmentation", "--format", "=", "l") == ["latex"]
    assert "--skip-bad" in bash("plan", "augmentation", "--sk")
    assert "export-dcase" in bash("exp")


def test_trials_of_a_folder(bash: Offered, folder: Path) -> None:
    assert bash("export-dcase", "a") == []
    trials = folder / "results" / "trials"
    trials.mkdir(parents=True)
    for key in ("aa11", "aa22", "bb33"):
        (trials / f"{key}.parquet").touch()
    assert bash("export-dcase", "a") == ["aa11", "aa22"]
    assert bash("explain", "aa1") == ["aa11"]
    assert bash("explain", "aug") == ["augmentation:", "augmentation:baseline"]
    assert bash("explain", "augmentation", ":") == ["baseline"]
    assert bash("explain", "aa11", "b") == ["batch_size:", "broken.yaml:", "bb33"]
    other = folder / "other" / "trials"
    other.mkdir(parents=True)
    (other / "aa99.parquet").touch()
    assert bash("export-dcase", "--results", "other", "a") == ["aa99"]
    assert bash("export-dcase", "--results", "s3://nowhere/at-all", "a") == []


def test_published_weights_and_files_of_weights(bash: Offered, zsh: Callable[[str], str], folder: Path) -> None:
    (folder / "mn.pth").touch()
    assert bash("weights", "fetch", "mn04") == ["mn04_as"]
    assert bash("weights", "fetch", "mn04_as", "byola_5") == ["byola_512"]
    assert bash("weights", "verify", "mn.") == ["mn.pth"]
    assert bash("weights", "verify", f"{folder}/m") == [f"{folder}/mn.pth"]
    assert '"mn10_as":"AudioSet mAP 47.1"' in zsh("weights verify mn1")


def test_only_what_bash_has_broken_is_mended() -> None:
    environ = {"COMP_WORDS": "raysd\nplan\na b.yaml\n--set=\nx", "COMP_CWORD": "4"}
    mend_bash_words(environ)
    assert environ == {"COMP_WORDS": "raysd\nplan\na b.yaml\n--set=\nx", "COMP_CWORD": "4", BROKEN: ""}


def test_names_are_offered_without_anything_heavy() -> None:
    code = """
import sys
from raysd import cli
try:
    cli.main()
except SystemExit:
    print("heavy:", {"torch", "ray", "pandas", "pyarrow"} & {*sys.modules})
"""
    for words in ("plan\naug", "plan\naugmentation\n--profile\n", "plan\naugmentation\n--set\ntrain.ep"):
        count = words.count("\n") + 1
        environ = {"_RAYSD_COMPLETE": "complete_bash", "COMP_WORDS": f"raysd\n{words}", "COMP_CWORD": str(count)}
        run = [sys.executable, "-c", f"import sys; sys.argv = ['raysd']\n{code}"]
        ended = subprocess.run(run, capture_output=True, text=True, env={**os.environ, **environ})
        assert ended.stdout.splitlines()[-1] == "heavy: set()", ended.stderr
        assert len(ended.stdout.splitlines()) > 1


def test_bash_learns_it_from_the_script_that_raysd_prints(tmp_path: Path) -> None:
    """In a real bash: the script is read, and its function called with words as bash breaks them."""
    raysd = Path(sys.executable).with_name("raysd")
    lines = f"""
eval "$({raysd} --show-completion)"
COMP_WORDS=({raysd} plan augmentation --set train.precision = b)
COMP_CWORD=6
_raysd_completion {raysd} b =
echo "offered: ${{COMPREPLY[*]}}"
{raysd} --install-completion
"""
    home = {"HOME": str(tmp_path), "PATH": f"{raysd.parent}:{os.environ['PATH']}"}
    ended = subprocess.run(["bash", "--norc"], input=lines, capture_output=True, text=True, env={**os.environ, **home})
    assert "offered: bf16" in ended.stdout.splitlines(), ended.stderr
    assert "raysd" in (tmp_path / ".bashrc").read_text(encoding="utf-8")
    assert "complete_bash" in (tmp_path / ".bash_completions" / "raysd.sh").read_text(encoding="utf-8")
