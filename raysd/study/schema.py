"""JSON Schemas of study files, recipe files and pretrainings, with which an editor completes and checks them.

Made from the settings' own classes and docstrings. What a file may be is decided where it is loaded: a schema refuses
nothing sensible that is taken there, and takes some of what is refused there.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from raysd.data.years import YEARS
from raysd.detect.metrics import headline_metrics
from raysd.detect.proxies import PROXIES
from raysd.recipe import Recipe
from raysd.study.files import DesignName, Study
from raysd.study.files import _AboutRecipe as AboutRecipe
from raysd.study.pretrainings import REFUSED, Pretraining

Json = dict[str, Any]

DESIGN_ROWS: dict[DesignName, str] = {
    "one_at_a_time": "A row for each level of each factor, all else as in the baseline.",
    "leave_one_out": "A row for each factor that can be off: the baseline without it.",
    "only_one": "A row with all factors off, and one for each factor with that factor alone on.",
    "factorial": "A row for each combination of levels; a factor whose `when` does not hold is not crossed.",
    "list": "The rows that stand in `variants`.",
    "search": "Rows that a sampler suggests out of the space of the factors, judged by normal clips alone.",
}
"""What rows a design makes beside the baseline, which is always the first."""


def study_schema() -> Json:
    """The JSON Schema (2020-12) of a study file."""
    defs = _definitions(Study, Recipe)
    study, factor = defs.pop("Study"), defs["Factor"]["properties"]
    paths = _paths(defs, "Recipe")
    of_path = {path: _ref("Changes", path) for path in paths}
    defs["Changes"] = _object(paths)
    defs["Conditions"] = _object({path: _condition(path, of_path) for path in paths})
    defs["Setting"] = {"enum": list(paths)}
    factor["setting"] = _instead(factor["setting"], {"$ref": "#/$defs/Setting"})
    factor["when"] = _instead(factor["when"], {"$ref": "#/$defs/Conditions"})
    defs["Factor"]["anyOf"] = [{"required": ["setting"]}, {"required": ["levels"]}]
    defs["Factor"]["allOf"] = [_levels_of(path, of) for path, of in of_path.items()]

    keys = study.pop("properties")
    defs["Design"] = _any({"const": name, "description": DESIGN_ROWS[name]} for name in get_args(DesignName))
    one = {"$ref": "#/$defs/Design"}
    keys["design"] = _instead(keys["design"], _any([one, {"type": "array", "items": one, "minItems": 1}]))
    metrics = dict.fromkeys(metric for year in YEARS for metric in headline_metrics(year))
    keys["metric"] = {**keys["metric"], "enum": [*metrics, *PROXIES]}

    # what another study says need not be said again, and null leaves it out
    scale = _object({name: _or_null(_ref("Scale", name)) for name in defs["Scale"]["properties"]})
    named = {
        name: {**keys[name], "additionalProperties": _or_null(keys[name]["additionalProperties"])}
        for name in ("factors", "variants")
    }
    extending = {name: _or_null(of) for name, of in {**keys, **named, "scale": scale}.items()}
    study["properties"] = dict.fromkeys(keys, True)
    study["if"] = {"required": ["extends"]}
    study["then"] = {"properties": extending}
    study["else"] = {"properties": keys, "required": study.pop("required")}
    return _document("study", study, defs)


def recipe_schema() -> Json:
    """The JSON Schema (2020-12) of a recipe file."""
    defs = _definitions(AboutRecipe, Recipe)
    defs["Changes"] = _object(_paths(defs, "Recipe"))
    recipe = {**defs["Recipe"], "description": "A recipe: the settings that are not what they are by default."}
    recipe["properties"] = {**defs.pop(AboutRecipe.__name__)["properties"], **recipe["properties"]}
    return _document("recipe", recipe, defs)


def pretraining_schema() -> Json:
    """The JSON Schema (2020-12) of a pretraining's file."""
    defs = _definitions(Pretraining, Recipe)
    defs["Changes"] = _object(_paths(defs, "Recipe"))
    own = defs.pop("Pretraining")
    of_recipe = {key: of for key, of in defs["Recipe"]["properties"].items() if key not in REFUSED}
    return _document("pretraining", {**defs["Recipe"], **own, "properties": {**own["properties"], **of_recipe}}, defs)


SCHEMAS = {"study": study_schema, "recipe": recipe_schema, "pretraining": pretraining_schema}
"""What makes the schema of a kind of files."""


def as_text(schema: Any, indent: str = "") -> str:
    """JSON in lines of at most 120 characters, as far as can be: what fits in one stands in one."""
    line = json.dumps(schema, ensure_ascii=False)
    if len(indent) + len(line) <= 118 or not isinstance(schema, dict | list):
        return line
    inner = f"{indent} "
    if isinstance(schema, list):
        entries = [as_text(value, inner) for value in schema]
    else:
        entries = [f"{json.dumps(key)}: {as_text(value, inner)}" for key, value in schema.items()]
    body = ",\n".join(inner + entry for entry in entries)
    return f"[\n{body}\n{indent}]" if isinstance(schema, list) else f"{{\n{body}\n{indent}}}"


def parts(value: Json) -> list[str]:
    """The definitions that a value may be: those of a part of a recipe or of a study."""
    if "$ref" in value:
        return [value["$ref"].rpartition("/")[2]]
    return [name for choice in value.get("anyOf", []) for name in parts(choice)]


def _document(kind: str, root: Json, defs: Json) -> Json:
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "$comment": f"Made by `raysd schema {kind}`.", **root, "$defs": defs}


def _definitions(*kinds: type[BaseModel]) -> Json:
    """Class name -> schema, of these classes and of all that stand in them."""
    made = models_json_schema([(kind, "validation") for kind in kinds], ref_template="#/$defs/{model}")[1]
    defs = {name: _tidy(value) for name, value in made["$defs"].items()}
    for name in ["Recipe", *{of["$ref"].split("/")[2]: None for _, of in _below(defs, "Recipe")}]:
        # a recipe takes dotted paths in any part, but completion need not offer them there
        dotted = {f"^{re.escape(path)}$": of for path, of in _paths(defs, name).items() if "." in path}
        if dotted:
            defs[name]["patternProperties"] = dotted
    return defs


def _paths(defs: Json, name: str) -> dict[str, Json]:
    """Every dotted path below a definition, and the schema of its value; whole parts are among them."""
    found: dict[str, list[Json]] = {}
    for path, of in _below(defs, name):
        found.setdefault(path, []).append(of)  # several of one path: the settings of several encoders, for one
    return {path: _any(choices) for path, choices in found.items()}


def _below(defs: Json, name: str, prefix: str = "") -> Iterator[tuple[str, Json]]:
    for key, value in defs[name]["properties"].items():
        yield f"{prefix}{key}", _ref(name, key)
        for part in parts(value):
            yield from _below(defs, part, f"{prefix}{key}.")


def _tidy(value: Any) -> Any:
    """pydantic's schema with what editors make most of, and without what they make nothing of."""
    if isinstance(value, list):
        return [_tidy(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    tidied: Json = {}
    for key, inner in value.items():
        if key == "properties":
            tidied[key] = {name: _tidy(of) for name, of in inner.items()}
        elif key == "oneOf":
            tidied["anyOf"] = _tidy(inner)  # a part without its name may be any of them
        elif key == "description":
            tidied[key] = re.sub(r"(?<!\n)\n(?![\n-])", " ", inner)  # editors fold lines themselves
        elif key == "default" and isinstance(inner, dict):
            tidied |= {key: {"name": inner["name"]}} if "name" in inner else {}  # a whole part is no help
        elif key not in ("title", "discriminator"):
            tidied[key] = _tidy(inner)
    if tidied.get("additionalProperties") is True:  # a `dict[str, Any]` holds changes of a recipe
        del tidied["additionalProperties"], tidied["type"]
        tidied["$ref"] = "#/$defs/Changes"
    return tidied


def _levels_of(path: str, of: Json) -> Json:
    """What the levels of a factor have to be whose setting is at `path`."""
    values = {"levels": {"items": of}, "off": of}
    return {"if": {"properties": {"setting": {"const": path}}, "required": ["setting"]}, "then": {"properties": values}}


def _condition(path: str, of_path: Json) -> Json:
    """What a setting may have to be for a factor to mean anything: a value, or any of several."""
    if any(other.startswith(f"{path}.") for other in of_path):  # a part, which is there or not; or nested conditions
        return _any([{"const": "on"}, {"type": "null"}, {"type": "object"}])
    return _any([of_path[path], {"type": "array", "items": of_path[path]}])


def _instead(described: Json, value: Json) -> Json:
    """`value` with the description and the default of what it replaces."""
    return {key: described[key] for key in ("description", "default") if key in described} | value


def _ref(name: str, key: str) -> Json:
    return {"$ref": f"#/$defs/{name}/properties/{key}"}


def _any(choices: Iterable[Json]) -> Json:
    alternatives = list(choices)
    return alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}


def _or_null(value: Json) -> Json:
    return _any([value, {"type": "null"}])


def _object(properties: dict[str, Json]) -> Json:
    return {"type": "object", "properties": properties, "additionalProperties": False}
