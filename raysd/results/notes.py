"""Small JSON files of a results root, read strictly: what is none, or of another kind, is named in one line."""

from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from raysd.errors import BadInput
from raysd.results.store import Results

Note = TypeVar("Note")


def read_note(results: Results, name: str, kind: TypeAdapter[Note], what: str) -> Note:
    """The content of a file. Raises BadInput where it is no `kind`; `what` says what it should be."""
    try:
        return kind.validate_json(results.storage.read(name) or b"")
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        where = ".".join(map(str, found["loc"]))
        why = f"{where}: {found['msg']}" if where else found["msg"]
        raise BadInput(f"{results}/{name}: cannot be read as {what} ({why}); delete it") from None
