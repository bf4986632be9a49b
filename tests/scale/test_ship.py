"""What travels to a cluster with a study, and what does not."""

import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from raysd.errors import BadInput
from raysd.results.provenance import code
from raysd.scale.ship import shipped, staged
from raysd.study.design import load_study

STUDY = """
question: "Does it travel?"
baseline: ../recipes/own.yaml
factors: { log_mixup_exp: { setting: augment.log_mixup_exp } }
design: leave_one_out
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of one's own, its recipe beside its folder, and all that must stay here."""
    project = tmp_path / "project"
    for name, text in {
        "studies/mine.yaml": STUDY,
        "recipes/own.yaml": "augment: { log_mixup_exp: {} }",
        "data/dev_data/fan/train/normal_id_00_00000000.wav": "sound",
        "studies/results/trials/0.parquet": "scores",
        "studies/.git/config": "[core]",
        "studies/.env": "TOKEN=hunter2",
        "recipes/weights.pt": "weights",
    }.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    return project / "studies/mine.yaml"


def test_raysd_and_the_files_of_the_study_travel_and_nothing_else(study: Path) -> None:
    files, word = shipped(load_study(study))
    assert word == "study/studies/mine.yaml"
    names = {str(name) for name in files}
    assert {name for name in names if name.startswith("study/")} == {word, "study/recipes/own.yaml"}
    assert {"raysd/cli.py", "raysd/__main__.py", "studies/augmentation.yaml", "studies/recipes/classical.yaml"} <= names
    assert {PurePosixPath(name).parts[0] for name in names} == {"raysd", "studies", "study"}
    assert {PurePosixPath(name).suffix for name in names} <= {".py", ".yaml", ".json", ".html"}


def test_all_that_a_study_extends_travels_too(study: Path) -> None:
    project = study.parent.parent
    for name, text in {
        "others/base.yaml": STUDY.replace("../recipes/own.yaml", "base_recipe.yaml"),
        "others/base_recipe.yaml": "augment: { log_mixup_exp: {} }\nprofiles: { small: { train: { epochs: 1 } } }",
        "more/promoted.yaml": "train: { epochs: 2 }",
    }.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    study.write_text(
        "extends: ../others/base.yaml\ndesign: [leave_one_out, list]\nvariants: { promoted: ../more/promoted.yaml }\n"
        "references: [recipes/classical.yaml, ../recipes/own.yaml]",
        encoding="utf-8",
    )
    loaded = load_study(study)
    files, word = shipped(loaded)
    assert word == "study/studies/mine.yaml"
    assert {str(name) for name in files if name.parts[0] == "study"} == {
        *(word, "study/others/base.yaml", "study/others/base_recipe.yaml"),
        *("study/more/promoted.yaml", "study/recipes/own.yaml"),
    }
    with staged(loaded) as (folder, _):
        there = load_study(folder / word)
        assert there.variants == loaded.variants
        assert all(source.path.resolve().is_relative_to(folder.resolve()) for source in there.file.extended)
    study.write_text(f"extends: {project / 'others/base.yaml'}", encoding="utf-8")
    with pytest.raises(BadInput, match=r"mine\.yaml: extends: .*base\.yaml is not found on a cluster; give a relative"):
        shipped(load_study(study))


def test_a_study_may_extend_a_predefined_one(study: Path) -> None:
    study.write_text("extends: cutoff\nseeds: [7]", encoding="utf-8")
    files, word = shipped(load_study(study))
    assert {str(name) for name in files if name.parts[0] == "study"} == {word}
    assert PurePosixPath("studies/cutoff.yaml") in files


def test_a_predefined_study_is_named(study: Path) -> None:
    files, word = shipped(load_study("cutoff"))
    assert word == "cutoff"
    assert PurePosixPath("studies/cutoff.yaml") in files


def test_there_python_finds_the_study_its_recipes_and_the_raysd_that_was_sent(study: Path) -> None:
    with staged(load_study(study)) as (folder, word):
        assert not {path for path in folder.rglob("*") if "hunter2" in path.name or path.suffix in (".wav", ".pt")}
        program = (
            "import raysd, sys; from raysd.study.design import load_study; from raysd.results.provenance import code;"
            "print(raysd.__file__); print([v.name for v in load_study(sys.argv[1]).variants]); print(code()['commit'])"
        )
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        ran = subprocess.run(
            [sys.executable, "-c", program, word], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        where, variants, commit = ran.stdout.splitlines()
        assert Path(where).resolve() == (folder / "raysd/__init__.py").resolve()
        assert variants == "['baseline', 'without log_mixup_exp', 'classical']"
        assert commit == str(code()["commit"])
    assert not folder.exists()


def test_too_much_is_refused_with_the_largest_files(study: Path) -> None:
    (study.parent.parent / "recipes/own.yaml").write_text("augment: { log_mixup_exp: {} }\n" + "#" * 200_000)
    said = r"mine\.yaml: .* would be sent, more than 100 kB; .*own\.yaml \(200 kB\)"
    with pytest.raises(BadInput, match=said), staged(load_study(study), largest_bytes=100_000):
        pass


def test_a_recipe_at_an_absolute_path_is_refused(study: Path) -> None:
    recipe = study.parent.parent / "recipes/own.yaml"
    study.write_text(STUDY.replace("../recipes/own.yaml", str(recipe)), encoding="utf-8")
    with pytest.raises(BadInput, match=r"baseline: .*own\.yaml is not found on a cluster; give a relative path"):
        shipped(load_study(study))
