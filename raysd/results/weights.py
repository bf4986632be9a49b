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
from torch import Tensor

from raysd.errors import BadInput
from raysd.results.storage import open_storage
from raysd.results.store import Results

_FOLDER = "pretrained"


def write_weights(results: Results, key: str, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Keeps an encoder's tensors under a key. The first ones win.

    `about` (plain JSON values) has `name` and `licence`, and under `encoder` and `features` those settings.
    """
    content = io.BytesIO()
    torch.save({name: tensor.cpu() for name, tensor in state.items()}, content)
    storage = open_storage(results.root)
    storage.write_new(f"{_FOLDER}/{key}.pt", content.getvalue())
    storage.write_new(f"{_FOLDER}/{key}.json", json.dumps({**about, "key": key}, indent=1).encode())


def own_weights(results: Results) -> list[dict[str, Any]]:
    """What each of them is, in the order of their keys."""
    storage = open_storage(results.root)
    found = [storage.read(name) for name in storage.names(_FOLDER, ".json")]
    return sorted((json.loads(text) for text in found if text is not None), key=lambda about: about["key"])


def read_weights(results: Results, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a key, and what they are. Raises BadInput where there are none."""
    storage = open_storage(results.root)
    about, content = (storage.read(f"{_FOLDER}/{key}.{kind}") for kind in ("json", "pt"))
    if about is None or content is None:
        raise BadInput(f"{results}: no pre-trained weights {key}; make them with raysd pretrain")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), json.loads(about)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
        raise BadInput(
            f"{results}/{_FOLDER}/{key}.pt: not loaded: it holds Python objects, which can run code, or is damaged; "
            "delete it, and make the weights again with raysd pretrain"
        ) from None
