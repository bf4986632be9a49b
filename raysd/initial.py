"""The weights that a recipe starts from: `pretrained` named by content, brought to where trials run, and read there.

`audioset:NAME` is a row of the table of published weights; every node finds or fetches its file (weights.py).
`checkpoint:KEY` lies in the results root, which all nodes see (results/weights.py). A study may say a name or a path
instead of the key: the key then takes its place before anything is keyed, so that trials depend on content alone. A
file named by its path is copied into the results root before a trial needs it.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysd.data.transfer import Tell, checksum_of
from raysd.errors import BadInput
from raysd.model.published import PUBLISHED
from raysd.recipe import NONE, OWN_PREFIX, PUBLISHED_PREFIX, Recipe
from raysd.results.store import Results

if TYPE_CHECKING:  # torch takes a second, and most commands read no weights
    from raysd.model.pretrained import Weights

_KEY = re.compile(r"[0-9a-f]{20}")


@dataclass
class Checkpoints:
    """What `checkpoint:...` means beside one results root."""

    results: Results
    files: dict[str, Path] = field(default_factory=dict)
    """Key -> file, of those that were named by path so far."""
    _own: list[dict[str, Any]] | None = None

    def pinned(self, said: str, folder: Path) -> str:
        """`checkpoint:` with a key, from a key, a path (relative to `folder` or to where one is) or a name.

        A name that the results root does not have yet stays as it is: `ready` tells. Raises BadInput for a file that is
        not there, and for a name that means several.
        """
        named = said.removeprefix(OWN_PREFIX)
        if not said.startswith(OWN_PREFIX) or _KEY.fullmatch(named):
            return said
        path = next((path for path in (folder / named, Path(named)) if path.is_file()), None)
        if path is not None:
            key = checksum_of(path).removeprefix("sha256:")[:20]
            self.files[key] = path
            return OWN_PREFIX + key
        if "/" in named or Path(named).suffix in (".pt", ".pth"):
            raise BadInput(f"pretrained {said}: no such file; give a path, or the name of a pretraining")
        keys = [about["key"] for about in self._there() if about["name"] == named]
        if len(keys) > 1:
            raise BadInput(
                f"pretrained {said}: {self.results} has {len(keys)} of that name; give one's key: {', '.join(keys)}"
            )
        return OWN_PREFIX + keys[0] if keys else said

    def ready(self, recipe: Recipe) -> bool:
        """Whether the weights are there, or can be had."""
        if not recipe.pretrained.startswith(OWN_PREFIX):
            return True
        key = recipe.pretrained.removeprefix(OWN_PREFIX)
        return key in self.files or self._has(key)

    def bring(self, recipes: Iterable[Recipe], cache: Path, tell: Callable[[str], None], progress: Tell) -> None:
        """Fetches published weights into the cache of this machine, and copies files into the results root.

        `tell` hears of licences; `progress` takes bytes so far and in all. Raises BadInput for what cannot be had.
        """
        for pretrained in dict.fromkeys(recipe.pretrained for recipe in recipes):
            key = pretrained.removeprefix(OWN_PREFIX)
            if pretrained.startswith(PUBLISHED_PREFIX):
                from raysd.weights import weights_file

                weights_file(pretrained.removeprefix(PUBLISHED_PREFIX), cache, progress, announce=tell)
            elif key in self.files and not self._has(key):
                from raysd.results.weights import write_weights
                from raysd.weights import read_tensors

                write_weights(self.results, key, read_tensors(self.files[key]), _about_file(self.files[key]))

    def _has(self, key: str) -> bool:
        return any(about["key"] == key for about in self._there())

    def _there(self) -> list[dict[str, Any]]:
        if self._own is None:
            from raysd.results.weights import own_weights

            self._own = own_weights(self.results)
        return self._own


def _about_file(path: Path) -> dict[str, Any]:
    published = next((row for row in PUBLISHED.values() if row.file_name == path.name), None)
    licence = published.licence if published else "not known"
    return {"name": path.name, "licence": licence, "unused": list(published.head) if published else []}


@lru_cache(maxsize=2)
def read(pretrained: str, cache: Path, results_root: str | Path) -> "Weights | None":
    """The weights that a recipe's `pretrained` names; None for `none`. Kept, for the next trial of the process.

    Raises BadInput where they are not there.
    """
    from raysd.model.features import Features
    from raysd.model.pretrained import Weights
    from raysd.results.weights import read_weights
    from raysd.weights import file_and_sha256, read_tensors

    if pretrained == NONE:
        return None
    if pretrained.startswith(PUBLISHED_PREFIX):
        row = PUBLISHED[pretrained.removeprefix(PUBLISHED_PREFIX)]
        path, sha256 = file_and_sha256(row.name, cache)
        origin = {"checksum": f"sha256:{sha256}", "licence": row.licence, "source": row.source}
        return Weights(pretrained, read_tensors(path), row.head, origin)
    state, about = read_weights(Results(results_root), pretrained.removeprefix(OWN_PREFIX))
    features = about.get("features")
    origin = {name: about[name] for name in ("name", "licence")}
    return Weights(
        pretrained, state, tuple(about.get("unused", ())), origin, features and Features.model_validate(features)
    )
