"""What names a trial, why nothing was reused, and in what two trials differ; on records made by hand."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from rich.console import Console, RenderableType

from raysd.errors import BadInput
from raysd.explain import Explanation, corpus_of, differ, explain, of_record, of_variant
from raysd.print_explain import render, render_difference
from raysd.recipe import NUMERICS, Recipe, recipe_key, training_key, trial_key
from raysd.results.store import Record, Results
from raysd.session import Session
from raysd.settings import with_changes
from raysd.study.design import load_study

STUDY = {
    "question": "Does it help?",
    "baseline": "base.yaml",
    "factors": {"crop": {"setting": "augment.random_resize_crop"}},
    "design": "leave_one_out",
    "seeds": [3, 4],
    "references": [],
}
BASE = {"augment": {"random_resize_crop": {}}, "profiles": {"cpu": {"train": {"epochs": 2}}}}
HERE, ELSEWHERE = "d0", "d1"


def corpus(clips: int, section: str = "00") -> list[dict[str, Any]]:
    """Scores of so many training clips and one test clip; and of what a search makes of them."""
    about = {"machine": "fan", "section": section, "part": "dev", "domain": None, "label": 0, "score": 0.0}
    own = [about | {"path": f"{section}/{i}.wav", "split": "held_out" if i == 0 else "train"} for i in range(clips)]
    return [*own, about | {"path": f"{section}/test.wav", "split": "test"}, own[0] | {"split": "perturbed"}]


def record(
    changes: dict[str, Any] | None = None, seed: int = 3, fingerprint: str = HERE, minute: int = 0, **other: Any
) -> Record:
    """The record of the baseline with some settings changed."""
    plain = {key: value for key, value in BASE.items() if key != "profiles"}
    recipe = with_changes(with_changes(Recipe(), plain, "base"), changes or {}, "changes")
    when = datetime(2024, 1, 1, 0, minute, tzinfo=UTC)
    values: dict[str, Any] = {
        "key": trial_key(recipe, seed, fingerprint),
        "training_key": training_key(recipe, seed, fingerprint),
        "recipe_key": recipe_key(recipe),
        "numerics": NUMERICS,
        "variant": "some",
        "study": "another",
        "profile": None,
        "seed": seed,
        "year": 2020,
        "data_fingerprint": fingerprint,
        "recipe": recipe.model_dump_json(),
        "started": when,
        "finished": when,
        "train_seconds": 1.0,
        "total_seconds": 1.0,
        "provenance": "{}",
        "scores": corpus(3),
    }
    return Record(**values | other)


class Known(Session):
    """A session that knows the fingerprint of its data without any clips; `None`: nothing is known."""

    corpus: str | None = HERE

    def fingerprint(self, recipe: Recipe) -> str | None:
        return self.corpus


@pytest.fixture
def session(tmp_path: Path) -> Known:
    for name, content in (("base", BASE), ("s", STUDY)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return Known(load_study(tmp_path / "s.yaml"), Results(tmp_path / "results"), None, tmp_path)


def explained(session: Session, *records: Record, words: str = "baseline") -> Explanation:
    for one in records:
        assert session.results.write(one)
    return explain(of_variant(session, words), session.results)


def printed(renderable: RenderableType) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_a_variant_names_a_trial(session: Known) -> None:
    baseline, other = session.study.variants
    assert of_variant(session, "baseline").key == trial_key(baseline.recipe, 3, HERE)
    chosen = of_variant(session, "without crop:4")
    assert (chosen.key, chosen.seed) == (trial_key(other.recipe, 4, HERE), 4)
    assert of_variant(session, "baseline:9").seed == 9  # of a run with --seeds
    with pytest.raises(BadInput, match=r"s: no variant 'without crops'; did you mean 'without crop'\?"):
        of_variant(session, "without crops")


def test_what_the_keys_cover_is_said(session: Known) -> None:
    found = explained(session, words="without crop")
    text = printed(render(found))
    assert found.found is None
    assert found.subject.key is not None
    assert found.subject.key in text
    assert found.subject.recipe_key in text
    assert "holds no finished trial" in text
    lines = [line.split() for line in text.splitlines()]
    rows = {" ".join(words[:-4]): [mark == "yes" for mark in words[-3:]] for words in lines if words[-1:] == ["yes"]}
    assert rows == {
        "the settings, but those of the scoring": [True, True, True],
        "the settings of the scoring": [True, False, True],
        "the seed": [False, True, True],
        "the fingerprint of the data": [False, True, True],
        "the revision of the code's numerics": [False, True, True],
    }


def test_a_trial_that_is_there_is_named(session: Known) -> None:
    there = record()
    found = explained(session, there, record({"train.epochs": 9}))
    assert found.found == "another: some, seed 3, finished 2024-01-01 00:00 UTC"
    assert found.near == ()
    assert "in " in printed(render(found))
    same = explain(of_record(session.results, session.results.read(there.key)), session.results)
    assert same.subject.key == found.subject.key
    assert same.found == found.found


@pytest.mark.parametrize(
    ("stands", "parts", "said"),
    [
        (record(fingerprint=ELSEWHERE), {"data"}, ": differs in data\n"),
        (record(numerics=NUMERICS + 1, key="n"), {"numerics"}, f"this code has revision {NUMERICS} of the numerics"),
        (record(seed=4), {"seed"}, ": differs in seed\n"),
        (record({"scoring.k": 2}), {"scoring"}, "both share one training"),
        (record({"train.epochs": 9}), {"settings"}, "train.epochs"),
        (record({"augment.random_resize_crop": None}), {"settings"}, "augment.random_resize_crop"),
    ],
)
def test_each_part_that_differs_is_shown(session: Known, stands: Record, parts: set[str], said: str) -> None:
    found = explained(session, stands)
    (near,) = found.near
    assert near.difference.parts == parts
    assert near.there.key == stands.key
    assert said in printed(render(found))


def test_the_nearest_record_of_each_kind_is_chosen(session: Known) -> None:
    found = explained(
        session,
        record({"train.epochs": 9, "train.batch_size": 9, "loss.contrastive.temperature": 0.3}, minute=4),
        record({"train.epochs": 8}, minute=1),
        record({"train.epochs": 7}, minute=2),  # as near, and newer
        record(seed=4),
        record({"train.epochs": 7}, seed=4),  # differs in seed and settings: the two above are nearer
        record(seed=4, fingerprint=ELSEWHERE),
        record({"scoring.k": 2}, fingerprint=ELSEWHERE),
    )
    assert [(set(near.difference.parts), near.others) for near in found.near] == [
        ({"settings"}, 2),
        ({"seed"}, 0),
        ({"scoring", "data"}, 0),
    ]
    assert found.near[0].difference.settings == {"train.epochs": (7, 50)}
    assert found.records == 7


def test_corpora_are_compared_clip_by_clip(session: Known) -> None:
    first, second = record(scores=corpus(5)), record(fingerprint=ELSEWHERE, scores=corpus(3) + corpus(2, "02"))
    session.results.write(first)
    session.results.write(second)
    subjects = [of_record(session.results, session.results.find(one.key[:8])) for one in (first, second)]
    assert corpus_of(pd.DataFrame(corpus(5))) == {
        ("dev", "fan", "00", "train"): frozenset(f"00/{i}.wav" for i in range(5)),
        ("dev", "fan", "00", "test"): frozenset(["00/test.wav"]),
    }
    text = printed(render_difference(subjects[0], subjects[1]))
    rows = {" ".join(words[:-2]): words[-2:] for words in map(str.split, text.splitlines()) if words}
    assert rows["data fingerprint"] == [HERE, ELSEWHERE]
    assert rows["dev fan 00 train"] == ["5", "3"]
    assert rows["dev fan 02 train"] == ["0", "2"]
    assert rows["all"] == ["6", "7"]
    assert "dev fan 00 test" not in rows
    assert "only first: 00/3.wav, 00/4.wav\n" in text.replace(" \n", "\n")
    assert "only second: 02/0.wav, 02/1.wav, 02/test.wav" in text
    assert "the checksum of its file" in text
    session.results.write(again := record(fingerprint="d2", scores=corpus(5)))
    alike = of_record(session.results, session.results.read(again.key))
    assert "the same clips by name" in printed(render_difference(subjects[0], alike))


def test_without_data_the_rest_is_compared(session: Known) -> None:
    object.__setattr__(session, "corpus", None)
    found = explained(session, record(), record({"train.epochs": 9}))
    assert found.subject.key is None
    (near,) = found.near
    assert near.difference.parts == set()
    assert near.difference.data_known is False
    text = printed(render(found))
    assert "not known: give --data-root" in text
    assert f"the same, if the data is the same ({HERE})" in text
    assert "but for the data, which is not known" in printed(render_difference(found.subject, near.there))


def test_failures_and_embeddings_are_told(session: Known) -> None:
    import pyarrow as pa

    failed = record(state="failed", failure_kind="code", traceback="E")
    session.results.write_failure(failed)
    session.results.write_embeddings(failed.training_key, pa.table({"path": ["a"]}))
    found = explained(session)
    assert (found.failed, found.trained) == (1, True)
    assert "1 failed attempts" in printed(render(found))


def test_recipes_of_an_earlier_code(session: Known) -> None:
    tree = json.loads(record().recipe)
    del tree["train"]["held_out"]  # a setting added since, whose default is what there was before
    found = explained(session, record(key="older", fingerprint=ELSEWHERE, recipe=json.dumps(tree)))
    assert found.near[0].difference.parts == {"data"}

    found = explained(session, record(key="odd", recipe_key="odd"))
    assert "the same, but named in another way" in printed(render(found))
    assert "an earlier code named its recipe in another way" in printed(render(found))

    tree["train"] |= {"momentum": 0.9, "epochs": 7}  # a setting that is gone
    session.results.write(gone := record(key="gone", recipe=json.dumps(tree)))
    there = of_record(session.results, session.results.read(gone.key))
    assert there.recipe is None
    how = differ(there, of_variant(session, "baseline"))
    assert how.settings == {
        "train.epochs": (7, 50),
        "train.momentum": (0.9, "(no such setting)"),
        "train.held_out": ("(no such setting)", 0.0),
    }
    text = printed(render_difference(there, of_variant(session, "baseline")))
    assert "settings compared as they stand in the results" in text
    assert "0.9" in text


def test_the_command(
    raysd: Callable[..., tuple[int, str, str]], session: Known, corpus: Callable[[int], Path], cache_dir: Path
) -> None:
    there = record(seed=4)
    session.results.write(there)
    study, root = session.study.path, session.results.root
    options = ("--results", root, "--data-root", corpus(2020), "--cache", cache_dir)
    status, out, _ = raysd("explain", f"{study}:without crop:4", *options)
    assert status == 0
    assert "not in" in out
    assert there.key in out
    assert "dev fan 00 train" in out.replace("  ", " ")  # the clips of the data root beside those of the record

    status, out, _ = raysd("explain", f"{study}:baseline", f"{study}:without crop:4", "--results", root)
    assert status == 0
    assert "augment.random_resize_crop" in out
    status, out, _ = raysd("explain", there.key[:6], there.key, "--results", root)
    assert f"one trial: {there.key}" in out
    status, out, _ = raysd("explain", f"{study}:baseline", "--profile", "cpu", "--results", root)
    assert "train.epochs" in out

    status, _, err = raysd("explain", study, "--results", root)
    assert (status, err.count("\n")) == (2, 1)
    assert f"{study}:baseline" in err
    assert raysd("explain", "0000", "--results", root)[0] == 2
