"""docs/study-file.md: every key of a study file and every setting of a recipe, from the schemas and their docstrings.

Made by `python -m raysd.study.reference`.
"""

import json
import re
from collections.abc import Iterator, Sequence

from raysd.study.schema import DESIGN_ROWS, Json, parts, recipe_schema, study_schema

EXAMPLE = """\
# yaml-language-server: $schema=study.schema.json
question: "Does high-frequency augmentation help, from which frequency on, and does the network matter?"
baseline: recipes/spectrum_contrastive.yaml  # a file beside this one, or a predefined recipe
profile: cpu                                 # what the recipe itself says under `profiles: cpu`
changes: { data: { year: 2022 } }            # holds for all rows

factors:
  high_frequency: { setting: augment.high_frequency, off: null }    # an ingredient: on as in the baseline, and off
  cutoff_hz:
    setting: augment.high_frequency.cutoff_hz
    levels: [1000, 2000, 4000]
    when: { augment.high_frequency: on }     # where there is none, its cutoff is no question
  network:                                   # a bundle of settings is one level
    levels:
      narrow: { encoder.width: 0.25 }
      wide: { encoder: { width: 1.0, embedding_dim: 64 }, train.epochs: 20 }

variants:
  scored by a Gaussian: { scoring.name: gaussian }

design: [one_at_a_time, list]
seeds: [0, 1, 2, 3, 4, 5]
budget: { hours: 8 }
"""

_INTRODUCTION = """\
A study file asks one question. It names the recipe that it starts from (the baseline), what is varied, how rows are
made of that, and the seeds. Each row is a variant: the baseline with some settings changed. A variant with one seed is
a trial.

```yaml
{example}```

```
raysd plan study.yaml --data-root DATA      # the rows, what is there already, what the rest costs; launches nothing
raysd run study.yaml --data-root DATA       # runs what is missing, prints the table
```

A setting of the recipe is named by its dotted path, `train.epochs: 20`, or nested, `train: {{ epochs: 20 }}`; both
forms are allowed wherever settings are changed. What is off is written `null`. Another `name` (of an encoder, a loss, a
scorer) starts from that entry's own defaults; all else is changed in what stands there. An unknown key or setting is an
error that names the nearest one.

Files are YAML 1.2: `off`, `on`, `yes` and `no` are words, `1e-3` is a number, and a key may stand once.

## In an editor

With the YAML language server (in VS Code: the extension "YAML" of Red Hat) an editor completes keys, settings and
values, shows what they mean, and underlines what is wrong. It wants one line at the top of a file, with the path or the
address of the schema:

```yaml
# yaml-language-server: $schema=study.schema.json
```

`raysd schema study > study.schema.json` and `raysd schema recipe > recipe.schema.json` write the schemas of the raysd
that is installed. The predefined studies use those beside them. What several keys have to be together is checked
only when the file is loaded, which `raysd plan` does.
"""

_DESIGNS = """\
The first row is always the baseline, once. `design` names one design, or several whose rows are united. Rows that turn
out to be the same recipe are merged, and the plan and the table say so. All rows have the same seeds, so that every
difference to the baseline is paired.
"""

_FACTORS = """\
A factor is written in one of these ways:

```yaml
factors:
  # levels of one setting
  cutoff_hz: { setting: augment.high_frequency.cutoff_hz, levels: [1000, 2000] }
  # an ingredient: on as in the baseline, and off
  log_mixup_exp: { setting: augment.log_mixup_exp }
  # the same, where another value than null means off
  segments: { setting: segments.two_crops, off: false }
  # bundles: each level changes several settings; one that is named off makes an ingredient of them
  classification:
    levels:
      wide margin: { loss.classification: { name: arcface, margin: 0.8 }, train.epochs: 20 }
      off: { loss.classification: null }
  # all numbers between two, for the design search
  learning_rate: { setting: train.learning_rate, range: { low: 1e-4, high: 1e-2, log: true } }
```

`leave_one_out` and `only_one` need to know what `off` is; the other designs take every level.
"""

_WHEN = """\
### Conditions

`when` says where a factor means anything: the cutoff of an augmentation does not where the augmentation is off.

```yaml
factors:
  high_frequency: { setting: augment.high_frequency, off: null }
  mode: { setting: augment.high_frequency.mode, levels: [noise, mask], when: { augment.high_frequency: on } }
  k: { setting: scoring.k, levels: [1, 4], when: { scoring.name: [knn] } }
```
"""

_EXTENDS = """\
## Extending another study

```yaml
extends: augmentation          # a predefined study, or a file beside this one
question: "The same for 2022, without the segments, and with more seeds?"
changes: {{ data.year: 2022 }}
factors: {{ segments: null }}    # left out
seeds: [0, 1, 2, 3, 4, 5]
```

{meaning} Trials are shared: what the other study has run is not run again.
"""


def study_file_markdown() -> str:
    """The text of docs/study-file.md."""
    study, recipe = study_schema(), recipe_schema()
    keys, defs = study["else"]["properties"], study["$defs"] | recipe["$defs"]
    about = {key: of for key, of in recipe["properties"].items() if key not in defs["Recipe"]["properties"]}
    lines = [
        "# Study files",
        "",
        "<!-- Made from the settings' classes by `python -m raysd.study.reference`; edit there. -->",
        "",
        _INTRODUCTION.format(example=EXAMPLE),
        "## The keys of a study",
        "",
        *_table(defs, keys, study["else"]["required"]),
        "",
        "## Designs",
        "",
        _DESIGNS,
        "| design | rows |",
        "|---|---|",
        *(f"| `{name}` | {rows} |" for name, rows in DESIGN_ROWS.items()),
        "",
        "## Factors",
        "",
        _FACTORS,
        *_table(defs, defs["Factor"]["properties"]),
        "",
        _WHEN,
        *_section(defs, "### `range`", "Range"),
        _EXTENDS.format(meaning=keys["extends"]["description"]),
        *_section(defs, "## `budget`", "Budget"),
        *_section(defs, "## `search`", "Search"),
        *_section(defs, "## `pruning`", "Pruning"),
        *_section(defs, "## `scale`", "Scale"),
        "## Recipe files",
        "",
        "A recipe file holds the settings that differ from their defaults, nested or dotted, and beside them:",
        "",
        *_table(defs, about),
        "",
        *_section(defs, "### `chosen`", "Chosen"),
        "## The settings of a recipe",
        "",
        "In the order of the data. They decide the numbers of a trial, and are in its key.",
        "",
    ]
    for part in defs["Recipe"]["properties"]:
        lines += _settings(defs, "Recipe", part)
    return "\n".join(lines).rstrip("\n") + "\n"


def _settings(defs: Json, owner: str, key: str, above: str = "") -> Iterator[str]:
    """Headings and tables of what may stand at a path of a recipe, and then of the parts in it."""
    path, inside = f"{above}{key}", dict[str, str]()
    of = defs[owner]["properties"][key]
    if not parts(of):
        yield from (f"### `{path}`", "", *_table(defs, {path: of}), "")
    for name in parts(of):
        properties = defs[name]["properties"]
        called = properties.get("name", {}).get("const")
        yield from _section(defs, f"### `{path}`" + (f" with `name: {called}`" if called else ""), name, f"{path}.")
        inside |= {inner: name for inner, of in properties.items() if parts(of)}
    for inner, name in inside.items():  # the same in all that have it
        yield from _settings(defs, name, inner, f"{path}.")


def _section(defs: Json, heading: str, name: str, prefix: str = "") -> list[str]:
    """A heading, what the definition is, and its keys."""
    part = defs[name]
    rows = _table(defs, part["properties"], part.get("required", ()), prefix)
    return [heading, "", part["description"], "", *rows, ""]


def _table(defs: Json, properties: Json, required: Sequence[str] = (), prefix: str = "") -> list[str]:
    rows = ["| key | allowed | default | meaning |", "|---|---|---|---|"]
    for key, of in properties.items():
        if "const" in of:  # the name of an entry, which stands in the heading
            continue
        default = "required" if key in required else f"`{json.dumps(of['default'])}`" if "default" in of else ""
        cells = (f"`{prefix}{key}`", _allowed(of), default, _meaning(defs, of))
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return rows


def _meaning(defs: Json, of: Json) -> str:
    """The description of a key, or the first sentence of that of the part which it holds."""
    holds = parts(of)
    if "description" not in of and len(holds) == 1:
        return re.split(r"(?<=\.) (?=[A-Z])|\n", defs[holds[0]]["description"])[0]
    return " ".join(of.get("description", "").split())


def _allowed(of: Json) -> str:
    """What a value may be, in words."""
    if "$ref" in of:
        return _KINDS.get(of["$ref"].rpartition("/")[2], "settings")
    if "anyOf" in of:
        return " or ".join(dict.fromkeys(_allowed(choice) for choice in of["anyOf"]))
    if "const" in of or "enum" in of:
        return ", ".join(f"`{value}`" for value in of.get("enum", [of.get("const")]))
    match of.get("type"):
        case "integer" | "number" as kind:
            known = {sign: of[key] for key, sign in _BOUNDS.items() if key in of}
            bounds = [f"{sign} {it:,}" if isinstance(it, int) else f"{sign} {it:g}" for sign, it in known.items()]
            return " ".join(["whole number" if kind == "integer" else "number", ", ".join(bounds)]).rstrip()
        case "array" if "prefixItems" in of:
            return f"[{', '.join(_allowed(item) for item in of['prefixItems'])}]"
        case "array":
            return f"list of: {_allowed(of['items'])}" if of["items"] else "list"
        case "object":
            return f"`name:` {_allowed(of['additionalProperties'])}"
        case "boolean":
            return "`true`, `false`"
        case "string":
            return "text"
        case "null":
            return "`null`"
    return "any value"


_KINDS = {"Setting": "a setting's dotted path", "Design": "a design", "Factor": "a factor", "Conditions": "conditions"}
"""What a definition is called that is no part of settings."""
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


if __name__ == "__main__":
    print(study_file_markdown(), end="")
