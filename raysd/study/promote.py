"""The winner of a search as a recipe file, and a study that compares it with its baseline on fresh seeds."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml

from raysd.errors import BadInput
from raysd.paper.tables import ORACLE
from raysd.parallel import Scale
from raysd.recipe import Recipe, recipe_key
from raysd.results.searches import Suggestion
from raysd.results.storage import open_storage
from raysd.settings import Settings, with_changes
from raysd.study.files import Chosen, Study, load_recipe
from raysd.study.places import beside, predefined_folder, shown
from raysd.study.searched import Searched

NUM_SEEDS = 6
"""Seeds of the study that follows: the fewest with which a test of paired differences can reach p < 0.05."""


@dataclass(frozen=True)
class Promotion:
    """A suggestion that is to become a recipe."""

    found: Searched
    suggestion: Suggestion

    @property
    def recipe(self) -> Recipe:
        """What was tried, with all training clips that the baseline trains on."""
        return with_changes(self.baseline, self.suggestion.changes, self.suggestion.name)

    @property
    def baseline(self) -> Recipe:
        """The baseline of the search, with nothing held out but what it holds out itself."""
        study = self.found.study
        own = with_changes(self.start, study.study.changes, shown(study.path)).train.held_out
        return with_changes(study.baseline.recipe, {"train.held_out": own}, shown(study.path))

    @property
    def is_baseline(self) -> bool:
        """Whether it is no other recipe than the baseline."""
        return recipe_key(self.recipe) == recipe_key(self.baseline)

    @property
    def start(self) -> Recipe:
        """The recipe file that the study names as its baseline, in the study's profile."""
        study, loaded = self.found.study, load_recipe(self.start_file)
        changes = loaded.profiles[study.profile] if study.profile else {}
        return with_changes(loaded.recipe, changes, shown(self.start_file))

    @property
    def start_file(self) -> Path:
        study = self.found.study
        return beside(study.file.origin("baseline"), study.study.baseline, "baseline")

    @property
    def chosen(self) -> Chosen:
        """How it came to be, as its file keeps it."""
        return Chosen(
            search=self.found.study.name,
            suggestion=self.suggestion.number,
            seeds=self.used_seeds,
            objective=self.found.objective,
            value=self.suggestion.value or 0.0,
            oracle=self.found.study.oracle,
            data_fingerprint=self.found.fingerprint,
        )

    @property
    def used_seeds(self) -> tuple[int, ...]:
        """Those of the search, and of the one that its baseline came from."""
        study = self.found.study
        return tuple(sorted({*study.study.seeds, *(seed for how in study.chosen.values() for seed in how.seeds)}))

    @property
    def fresh_seeds(self) -> tuple[int, ...]:
        """The lowest of the others."""
        used = self.used_seeds
        return tuple(seed for seed in range(NUM_SEEDS + len(used)) if seed not in used)[:NUM_SEEDS]

    def recipe_text(self, command: str) -> str:
        """The recipe file."""
        found, one, chosen = self.found, self.suggestion, self.chosen
        place = [other.number for other in found.finished].index(one.number) + 1
        title = f"{found.objective} {chosen.value:.4f}"
        head = [
            *([ORACLE] if chosen.oracle else []),
            f"Promoted from the search '{found.study.name}': suggestion {one.number} of {len(found.suggestions)}, "
            f"number {place} of {len(found.finished)} finished by {title}.",
            "That number is optimistic: for it the recipe was chosen. An honest one comes from a run with seeds that "
            f"the search did not use; it used {', '.join(map(str, chosen.seeds))}.",
            f"Data fingerprint: {chosen.data_fingerprint}. Command: {command}",
        ]
        about = {
            "description": f"suggestion {one.number} of the search '{found.study.name}', chosen by {title}",
            "chosen": chosen.model_dump(mode="json"),
        }
        settings = changes_between(Recipe(), self.recipe)
        return f"{_commented(head)}{as_yaml({**about, **settings})}"

    def study_text(self, study_file: Path, recipe_file: Path) -> str:
        """The study file that follows."""
        before = self.found.study.study
        origin = self.found.study.file.origin("references")
        references = [_named(beside(origin, file, "references"), study_file) for file in before.references]
        changes, scale = changes_between(self.start, self.baseline), changes_between(Scale(), before.scale)
        content = {
            "question": "Does the promoted recipe beat its baseline, with fresh seeds?",
            "baseline": _named(self.start_file, study_file),
            **({"profile": before.profile} if before.profile else {}),
            **({"changes": changes} if changes else {}),
            "design": "list",
            "variants": {"promoted": _named(recipe_file, study_file)},
            "seeds": list(self.fresh_seeds),
            **({"metric": before.metric} if before.metric != Study.model_fields["metric"].default else {}),
            **({"references": references} if before.references != Study.model_fields["references"].default else {}),
            **({"scale": scale} if scale else {}),
        }
        name = self.suggestion.name.capitalize()
        head = [f"{name} of the search '{self.found.study.name}' against its baseline, on seeds that it did not use."]
        return f"{_commented(head)}{as_yaml(content)}"


def promotion(found: Searched, number: int | None = None) -> Promotion:
    """Suggestion `number`, or the best by the objective, of equal ones the first. BadInput for one without an end."""
    finished = {one.number: one for one in found.finished}
    if not finished:
        raise BadInput(f"search {found.study.name}: no suggestion is finished yet; go on with raysd run")
    if number is None:
        return Promotion(found, found.finished[0])
    if number not in finished:
        states = {one.number: one.state for one in found.suggestions}
        why = f"is {states[number]}, not done" if number in states else "was not made"
        known = ", ".join(str(one) for one in list(finished)[:10])
        raise BadInput(f"--suggestion {number}: it {why}; finished are, the best first: {known}")
    return Promotion(found, finished[number])


def write_promotion(promoted: Promotion, recipe_file: Path, study_file: Path | None, command: str) -> None:
    """Writes the recipe file and, where one is asked for, the study file; BadInput where either is there already."""
    files = {recipe_file: promoted.recipe_text(command)}
    if study_file is not None:
        files[study_file] = promoted.study_text(study_file, recipe_file)
    for path in files:
        if path.suffix not in (".yaml", ".yml"):
            raise BadInput(f"{path}: the file of a recipe or a study ends in .yaml")
        if path.exists():
            raise BadInput(f"{path}: is there already, and is not replaced; give another file, or delete it")
    if len(files) == 1 and study_file is not None:
        raise BadInput(f"{study_file}: the study needs another file than its recipe")
    for path, text in files.items():
        open_storage(path.absolute().parent).write_new(path.name, text.encode())


def changes_between(before: Settings, after: Settings) -> dict[str, Any]:
    """The nested changes with which `with_changes` makes `after` from `before`, in the order of the settings."""
    plain, changes = after.model_dump(mode="json"), dict[str, Any]()
    for name in type(after).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if not isinstance(new, Settings):
            if new != old:
                changes[name] = plain[name]
        elif type(old) is type(new):
            if inner := changes_between(old, new):
                changes[name] = inner
        else:  # another of its kind, or switched on: it starts from its own defaults
            named = {"name": plain[name]["name"]} if "name" in plain[name] else {}
            changes[name] = named | changes_between(type(new)(), new)
    return changes


def _named(file: Path, study_file: Path) -> str:
    """A recipe file as a study file names it: one that comes with raysd by its name there, any other from beside."""
    file, folder = file.absolute(), predefined_folder().absolute()
    if file.is_relative_to(folder) and not study_file.absolute().is_relative_to(folder):
        return file.relative_to(folder).as_posix()
    return Path(os.path.relpath(file, study_file.absolute().parent)).as_posix()


class _Dumper(yaml.SafeDumper):
    """Lists in one line; text in quotes unless it is a plain word, so that no reader takes it for a number."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if re.fullmatch(r"[A-Za-z_][\w./-]*", text) else '"'
    ),
)
_Dumper.add_representer(
    list, lambda dumper, values: dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)
)


def as_yaml(content: dict[str, Any]) -> str:
    """The entries of a file as raysd reads them back, with room around those that are several lines."""
    text, after_part = "", False
    for key, value in content.items():
        part = isinstance(value, dict)
        text += "\n" * (part or after_part)
        text += yaml.dump({key: value}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
        after_part = part
    return text


def _commented(lines: list[str]) -> str:
    return "".join(f"# {part}\n" for line in lines for part in wrap(line, 118))
