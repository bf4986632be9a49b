"""How many examples the tests of tests/fuzz try: few in the suite, always the same; very many in a campaign."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings

from raysd.errors import BadInput

CAMPAIGN = "long"
"""The profile of a campaign: python -m pytest tests/fuzz --hypothesis-profile=long --timeout=0"""
MOST_SECONDS = 30
"""Of the processor, for one input; a bound that only what grows without bounds meets."""

SLOW_IS_FINE = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)

settings.register_profile(
    CAMPAIGN,
    max_examples=2000,
    deadline=None,
    suppress_health_check=SLOW_IS_FINE,
    print_blob=True,
)


def examples(number: int) -> Callable[[Any], Any]:
    """For a property: the same `number` of examples in each run of the suite; in a campaign as many as it asks for."""
    if settings.get_current_profile_name() == CAMPAIGN:
        return settings(settings.get_profile(CAMPAIGN))
    return settings(max_examples=number, derandomize=True, deadline=None, suppress_health_check=SLOW_IS_FINE)


def is_one_line(error: BadInput) -> bool:
    """Whether a message is one line that a terminal shows as it is, and that somebody can read to its end."""
    text = str(error)
    return bool(text) and len(text) < 2500 and not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text)


@contextmanager
def in_bounded_time() -> Iterator[None]:
    """Fails where what is done takes very long."""
    start = time.process_time()
    yield
    assert time.process_time() - start < MOST_SECONDS
