"""The commands as Python, for notebooks: `raysd.Study` and `raysd.Results` say as frames what `raysd` prints.

Whatever is wrong with a file or a setting is raised as `raysd.errors.BadInput`, in one line.
"""

import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from rich.console import Console, RenderableType

from raysd import status
from raysd.cli_options import DEFAULT_CACHE, DEFAULT_RESULTS
from raysd.detect.metrics import COLUMNS as METRICS
from raysd.errors import BadInput
from raysd.paper import search_table, tables
from raysd.progress import bar
from raysd.recipe import NUMERICS, recipe_key
from raysd.results import store
from raysd.results.storage import absolute
from raysd.running import run_missing
from raysd.session import Session, open_study
from raysd.study import plan
from raysd.study.design import Trial, trials_of
from raysd.study.print_plan import render

_WIDTH = 160  # of what is printed, in characters
_ABOUT = ["key", "study", "variant", "seed"]
_TIMES = ["started", "finished", "train_seconds", "total_seconds", "clips_per_second"]

T = TypeVar("T")


class _Shown:
    """Shows itself as the command line prints it."""

    def _printed(self) -> RenderableType:
        raise NotImplementedError

    def __repr__(self) -> str:
        return self._recorded().export_text().rstrip()

    def _repr_html_(self) -> str:
        return self._recorded().export_html(inline_styles=True, code_format="<pre>{code}</pre>")

    def _recorded(self) -> Console:
        console = Console(file=io.StringIO(), record=True, width=_WIDTH, force_jupyter=False)
        console.print(self._printed())
        return console


class Plan(_Shown, plan.Plan):
    """What a study would run, and what it would cost."""

    def frame(self) -> pd.DataFrame:
        """A row a variant."""
        return pd.DataFrame([{**vars(row), "changed": plan.describe(row.changed)} for row in self.rows])

    def _printed(self) -> RenderableType:
        return render(self)


class StudyTable(_Shown, tables.StudyTable):
    """The table of a study on one corpus."""

    def frame(self) -> pd.DataFrame:
        """A row a variant, machine and metric, as fractions of 1, with the keys of the trials behind it."""
        return _cells(self.to_csv())

    def _printed(self) -> RenderableType:
        return self.to_rich()


class SearchTable(_Shown, search_table.SearchTable):
    """The table of a search on one corpus."""

    def frame(self) -> pd.DataFrame:
        """A row a suggestion, as fractions of 1, with its choices and the key of its trial."""
        return _cells(self.to_csv(), above=len(self.stamp))

    def _printed(self) -> RenderableType:
        return self.to_rich()


Table = StudyTable | SearchTable


class Status(_Shown, status.StudyStatus):
    """What the results hold of a study on one corpus."""

    def frame(self) -> pd.DataFrame:
        """A row a variant, with the seeds in each state."""
        return pd.DataFrame([vars(row) for row in self.rows])

    def _printed(self) -> RenderableType:
        return self.to_rich()


class Study:
    """A study with its data and its results; made by `Study.load`."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @classmethod
    def load(
        cls,
        study: str | Path,
        data_root: str | Path | None = None,
        results: str | Path = DEFAULT_RESULTS,
        *,
        set: Mapping[str, Any] | None = None,
        profile: str | None = None,
        seeds: Iterable[int] | None = None,
        cache: str | Path | None = None,
        skip_bad: bool = False,
    ) -> "Study":
        """A study file, or a predefined study by its name; the arguments are the options of the command line.

        `set` changes settings of the baseline or of the study: `{"train.epochs": 20}`. `data_root` is where the clips
        are; without it, only what the results hold can be asked for. Raises BadInput for what cannot be used.
        """
        numbers, root = None if seeds is None else tuple(seeds), None if data_root is None else Path(data_root)
        place, kept = store.Results(absolute(str(results))), Path(cache or DEFAULT_CACHE)
        return cls(open_study(study, dict(set or {}), profile, numbers, root, place, kept, skip_bad))

    @property
    def name(self) -> str:
        return self.session.study.name

    @property
    def question(self) -> str:
        return self.session.study.study.question

    @property
    def results(self) -> "Results":
        """The results root that the study was loaded with."""
        return Results(self.session.results.root)

    @property
    def variants(self) -> pd.DataFrame:
        """A row a variant, the baseline first: name, role, what it changes in words, how many seeds, recipe key."""
        study = self.session.study
        return pd.DataFrame(
            [
                {
                    "variant": row.name,
                    "role": row.role,
                    "changed": plan.describe(row.changed),
                    "seeds": len(study.seeds_of(row)),
                    "recipe_key": recipe_key(row.recipe),
                }
                for row in study.variants
            ]
        )

    def plan(self) -> Plan:
        """What would be run, what is there, what it would cost. Decodes the clips, if there is a data root."""
        self._decode()
        return _as(Plan, self.session.plan())

    def trials(self) -> pd.DataFrame:
        """A row a trial, in the order in which they are run: variant, role, seed, key, training_key, done.

        Of a search only those that are known before: the baseline and the references; its table has the suggestions.
        Decodes the clips, because a trial's key covers them; raises BadInput without a data root.
        """
        self._decode(needed=True)
        prints = {row.recipe.data: self.session.fingerprint(row.recipe) or "" for row in self.session.study.variants}
        return self._frame(trials_of(self.session.study, lambda recipe: prints[recipe.data]))

    def missing(self) -> pd.DataFrame:
        """Those of them that the results do not hold."""
        self._decode(needed=True)
        return self._frame(self.session.missing())

    def status(self) -> Status:
        """Which trials are done, begun, failed and why, or missing."""
        found = status.study_status(self.session.study, self.session.results, self.session.fingerprint)
        return _as(Status, self._only(found))

    def run(self) -> "Table":
        """Runs what is missing as `raysd run` does, and gives the table. Interrupted, it goes on when called again."""
        self._need_data()
        outcome = run_missing(self.session, Console(width=_WIDTH), ("raysd.Study.run",))
        if outcome is not None and outcome.interrupted:
            raise KeyboardInterrupt
        return self.table()

    def table(self) -> Table:
        """The study's table; raises BadInput where the results hold none, or several corpora and no data is given."""
        return self._only(self.tables())

    def tables(self) -> list[Table]:
        """One a corpus that the results hold; with a data root that corpus alone."""
        found = self.session.tables()
        return [_as(StudyTable if isinstance(table, tables.StudyTable) else SearchTable, table) for table in found]

    def __repr__(self) -> str:
        session, on = self.session, f" on {self.session.data_root}" if self.session.data_root else ""
        seeds = len(session.study.study.seeds)
        return f"<Study {self.name}: {len(session.study.variants)} variants, {seeds} seeds{on}, in {session.results}>"

    def _repr_html_(self) -> str:
        return (
            f"<p><b>{html.escape(self.name)}</b>: {html.escape(self.question)}</p>{self.variants.to_html(index=False)}"
        )

    def _decode(self, needed: bool = False) -> None:
        if needed:
            self._need_data()
        with bar(Console(stderr=True), "decoding clips") as progress:
            self.session.decode(progress)

    def _need_data(self) -> None:
        if self.session.data_root is None:
            raise BadInput(f"study {self.name}: its data is not known; give Study.load a data_root")

    def _frame(self, trials: Sequence[Trial]) -> pd.DataFrame:
        done = self.session.results.done()
        columns = ["variant", "role", "seed", "key", "training_key"]
        rows = [[getattr(trial, name) for name in columns] + [trial.key in done] for trial in trials]
        return pd.DataFrame(rows, columns=[*columns, "done"])

    def _only(self, found: list[T]) -> T:
        if len(found) > 1:
            raise BadInput(
                f"{self.session.results}: study {self.name} was run on {len(found)} corpora; give a data_root"
            )
        return found[0]


class Results:
    """The results below a folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER, as frames.

    With a study, only its own trials are given, whichever study ran them, under the names that it has for them.
    """

    def __init__(self, root: str | Path = DEFAULT_RESULTS) -> None:
        self.store = store.Results(absolute(str(root)))

    def trials(self, study: Study | None = None) -> pd.DataFrame:
        """A row a finished trial, without its scores: what it is, when it was run and how long it took."""
        return self._of(study, [*_ABOUT, "profile", "year", "data_fingerprint", "training_key", *_TIMES])

    def scores(self, study: Study | None = None) -> pd.DataFrame:
        """A row for each clip that a trial scored: key, study, variant, seed, path, section, label, score and so on."""
        names = None if study is None else self._names(study)
        return _renamed(self.store.scores(names), study, names)

    def metrics(self, study: Study | None = None) -> pd.DataFrame:
        """A row for each metric of a trial, of a section or a mean; values are fractions of 1."""
        trials = self._of(study, [*_ABOUT, "metrics"])
        entries = trials.pop("metrics")
        repeated = trials.loc[trials.index.repeat([len(own) for own in entries])].reset_index(drop=True)
        return repeated.join(pd.DataFrame.from_records(list(chain.from_iterable(entries)), columns=METRICS))

    def table(self, study: str | Path | Study, **options: Any) -> Table:
        """A study's table out of these results; `options` are those of `Study.load`."""
        return (study if isinstance(study, Study) else Study.load(study, results=self.store.root, **options)).table()

    def __repr__(self) -> str:
        return f"<Results {self.store}: {len(self.store.done())} trials>"

    def _of(self, study: Study | None, columns: list[str]) -> pd.DataFrame:
        names = None if study is None else self._names(study)
        return _renamed(pd.DataFrame(self.store.rows(columns, names), columns=columns), study, names)

    def _names(self, study: Study) -> dict[str, str]:
        """The keys of the study's trials that are there, each with the name of its variant in the study."""
        loaded = study.session.study
        variants = {recipe_key(row.recipe): row for row in loaded.variants}
        names: dict[str, str] = {}
        for row in self.store.rows(["key", "recipe_key", "seed", "numerics"]):
            variant = variants.get(row["recipe_key"])
            if variant is not None and row["numerics"] == NUMERICS and row["seed"] in loaded.seeds_of(variant):
                names[row["key"]] = variant.name
        return names


def _renamed(trials: pd.DataFrame, study: Study | None, names: Mapping[str, str] | None) -> pd.DataFrame:
    if study is None or names is None:
        return trials
    return trials.assign(study=study.name, variant=[names[key] for key in trials["key"]])


def _cells(csv: str, above: int = 0) -> pd.DataFrame:
    """A table from its CSV, with some lines above the header."""
    keys = {"key": str, "keys": str, "data_fingerprint": str}  # which may have no letters
    return pd.read_csv(io.StringIO(csv), skiprows=above, dtype=keys)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _as(kind: type[T], made: Any) -> T:
    """The same values as an object that shows itself."""
    return kind(**{field.name: getattr(made, field.name) for field in fields(made) if field.init})
