"""What travels to a cluster with a study: raysd itself, the predefined studies, the study's own files.

Those are the study file, the studies that it extends, and the recipes that they name.

Named file by file, so that no data, results, checkpoints, repository or environment can come along.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import raysd
from raysd.errors import BadInput
from raysd.results.provenance import SHIPPED_CODE, code
from raysd.study.design import LoadedStudy
from raysd.study.places import predefined_folder, predefined_studies, shown
from raysd.study.plan import size

LARGEST_BYTES = 50_000_000
"""More than this is a slip; Ray itself takes no more than about 500 MB."""


@contextmanager
def staged(study: LoadedStudy, largest_bytes: int = LARGEST_BYTES) -> Iterator[tuple[Path, str]]:
    """A temporary folder with all that travels, and how the study is named in it.

    A Python that is started in that folder imports the raysd in it. Raises BadInput, before anything is copied, for
    more than `largest_bytes` and for a recipe that cannot be found from there.
    """
    files, word = shipped(study)
    sizes = {source: source.stat().st_size for source in files.values()}
    if sum(sizes.values()) > largest_bytes:
        largest = sorted(sizes, key=lambda source: -sizes[source])[:3]
        named = ", ".join(f"{shown(path)} ({size(sizes[path])})" for path in largest)
        raise BadInput(
            f"{shown(study.path)}: {size(sum(sizes.values()))} would be sent, more than {size(largest_bytes)}; "
            f"move out of the package or the studies what does not belong there, largest first: {named}"
        )
    with tempfile.TemporaryDirectory(prefix="raysd-submit-") as folder:
        for name, source in files.items():
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        Path(folder, "raysd", SHIPPED_CODE).write_text(json.dumps(code()), encoding="utf-8")
        yield Path(folder), word


def shipped(study: LoadedStudy) -> tuple[dict[PurePosixPath, Path], str]:
    """Every file that travels, by its path in the folder, and how the study is named there."""
    package = Path(raysd.__file__).parent
    files = {PurePosixPath("raysd", path.relative_to(package).as_posix()): path for path in _files(package)}
    if not predefined_folder().is_relative_to(package):
        for path in _files(predefined_folder()):
            files[PurePosixPath("studies", path.relative_to(predefined_folder()).as_posix())] = path
    if predefined_studies().get(study.name) == study.path:
        return files, study.name

    own = [_absolute(study.path)]
    for source in study.sources:
        if Path(source.named).is_absolute():
            raise BadInput(f"{source.where}: {source.named} is not found on a cluster; give a relative path")
        path = _absolute(source.path)
        if not path.is_relative_to(_absolute(predefined_folder())) and path not in own:
            own.append(path)
    common = Path(os.path.commonpath([path.parent for path in own]))
    within = {path: PurePosixPath("study", path.relative_to(common).as_posix()) for path in own}
    return files | {name: path for path, name in within.items()}, str(within[own[0]])


def _files(folder: Path) -> list[Path]:
    """All files below, but for what is hidden and what Python has compiled."""
    below = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        path
        for path in below
        if not any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
    ]


def _absolute(path: Path) -> Path:
    """Without `..`, but with its own name where it is a link: a study is called as its file."""
    return Path(os.path.abspath(path))
