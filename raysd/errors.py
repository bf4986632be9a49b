"""The one exception that a user's mistake raises: a single line that names the file, the setting and the fix."""

from collections.abc import Iterable
from difflib import get_close_matches


class BadInput(Exception):
    """Input that cannot be used. Its text is one line; the command line prints it and exits with status 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def nearest(word: str, allowed: Iterable[str]) -> str:
    """A hint for an unknown `word`: the closest allowed spelling where there is one, then everything allowed."""
    choices = sorted(allowed)
    close = get_close_matches(word, choices, n=1)
    guess = f"did you mean '{close[0]}'? " if close else ""
    return f"{guess}allowed: {', '.join(choices)}"
