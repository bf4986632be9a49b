"""Weights of encoders that were pre-trained here: in a results root, `pretrained/<key>.pt` and `pretrained/<key>.json`.

A results root is what all nodes of a cluster see, so that a checkpoint named by its key is found wherever a trial runs.
The first file holds tensors and nothing else. The second says what they are, and is written last: without it they are
not there.
"""

import io
import json
from collections.abc import Mapping
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import BaseModel, TypeAdapter
from torch import Tensor

from raysd.errors import BadInput
from raysd.results.notes import read_note
from raysd.results.store import Results

_FOLDER = "pretrained"


class _About(BaseModel, extra="allow"):
    key: str
    name: str
    licence: str
    encoder: dict[str, Any] | None = None  # of a file that a recipe names by its path nothing is known
    features: dict[str, Any] | None = None


_ABOUT = TypeAdapter(_About)


def write_weights(results: Results, key: str, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Keeps an encoder's tensors under a key. The first ones win.

    `about` (plain JSON values) has `name` and `licence`, and under `encoder` and `features` those settings,
    where they are known.
    """
    content = io.BytesIO()
    torch.save({name: tensor.cpu() for name, tensor in state.items()}, content)
    storage = results.storage
    storage.write_new(f"{_FOLDER}/{key}.pt", content.getvalue())
    storage.write_new(f"{_FOLDER}/{key}.json", json.dumps({**about, "key": key}, indent=1).encode())


def own_weights(results: Results) -> list[dict[str, Any]]:
    """What each of them is, in the order of their keys."""
    found = [_about(results, name) for name in results.storage.names(_FOLDER, ".json")]
    return sorted(found, key=lambda about: about["key"])


def read_weights(results: Results, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a key, and what they are. Raises BadInput where there are none."""
    about, tensors = f"{_FOLDER}/{key}.json", f"{_FOLDER}/{key}.pt"
    content = results.storage.read(tensors)
    if content is None or not results.storage.exists(about):
        raise BadInput(f"{results}: no pre-trained weights {key}; make them with raysd pretrain")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
        raise BadInput(
            f"{results}/{tensors}: not loaded: it holds Python objects, which can run code, or is damaged; "
            "delete it, and make the weights again with raysd pretrain"
        ) from None
    return state, _about(results, about)


def _about(results: Results, name: str) -> dict[str, Any]:
    return read_note(results, name, _ABOUT, "what pre-trained weights are").model_dump(exclude_unset=True)
