"""Where study and recipe files are found. Imports nothing heavy: the shell asks it at every press of TAB."""

from pathlib import Path

import raysd
from raysd.errors import BadInput, nearest

_PRETRAINING = "pretrain_"
"""How the names of pretrainings begin."""


def predefined_folder() -> Path:
    """Where the studies that come with raysd are: in the installed package, or beside it in a checkout."""
    package = Path(raysd.__file__).parent
    installed = package / "studies"
    return installed if installed.is_dir() else package.parent / "studies"


def predefined_studies() -> dict[str, Path]:
    """The studies that come with raysd, by name."""
    found = sorted(predefined_folder().glob("*.yaml"))
    return {path.stem: path for path in found if not path.stem.startswith(_PRETRAINING)}


def predefined_pretrainings() -> dict[str, Path]:
    """The pretrainings that come with raysd, by name; they stand among the studies."""
    return {path.stem: path for path in sorted(predefined_folder().glob(f"{_PRETRAINING}*.yaml"))}


def find_study(name_or_path: str | Path) -> Path:
    """A study file: the path as given, else the predefined study of that name; BadInput where there is neither."""
    return _find(name_or_path, "study", predefined_studies())


def find_pretraining(name_or_path: str | Path) -> Path:
    """A pretraining's file, found in the same way."""
    return _find(name_or_path, "pretraining", predefined_pretrainings())


def _find(name_or_path: str | Path, kind: str, known: dict[str, Path]) -> Path:
    if is_file(Path(name_or_path)):
        return Path(name_or_path)
    if str(name_or_path) not in known:
        hint = nearest(str(name_or_path), known)
        raise BadInput(f"{name_or_path}: no such file, and no {kind} of that name; {hint}")
    return known[str(name_or_path)]


def beside(study_path: Path, file: str, key: str) -> Path:
    """The recipe file that a study names under `key`: beside it, else among the predefined."""
    for folder in (study_path.parent, predefined_folder()):
        if is_file(folder / file):
            return folder / file
    raise BadInput(f"{shown(study_path)}: {key}: no file {file}, neither beside the study nor in {predefined_folder()}")


def is_file(path: Path) -> bool:
    """Whether there is such a file; what can be no file's name, being too long, is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def shown(path: Path) -> str:
    """A path as a user reads it best: relative to where they are."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
