"""The one exception that a user's mistake raises: a single line that names the file, the setting and the fix."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

_MOST = 2000
"""Characters of a message. Of a longer one the beginning, which names the file, and the end with the fix stay."""


class BadInput(Exception):
    """Input that cannot be used. Its text is one line; the command line prints it and exits with status 2.

    What it quotes of the input may hold anything: what would steer a terminal is written out.
    """

    def __init__(self, message: str) -> None:
        line = re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", lambda one: ascii(one[0])[1:-1], " ".join(message.split()))
        super().__init__(line if len(line) <= _MOST else f"{line[: _MOST // 2]} ... {line[-_MOST // 2 :]}")


def nearest(word: str, allowed: Iterable[str]) -> str:
    """A hint for an unknown `word`: the closest allowed spelling where there is one, then everything allowed."""
    choices = sorted(allowed)
    close = get_close_matches(word, choices, n=1)
    guess = f"did you mean '{close[0]}'? " if close else ""
    return f"{guess}allowed: {', '.join(choices)}"
