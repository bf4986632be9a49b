"""Why there is no way into a cluster, in one line."""

import pytest

from raysd.scale.join import NoCluster, check_address, no_way_in


@pytest.mark.parametrize("address", ["http://head:8265", "head", "head:port", "http://["])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(NoCluster, match="but Ray wants HOST:PORT") as raised:
        check_address(address)
    assert "export RAY_ADDRESS=" in raised.value.fix


@pytest.mark.parametrize(
    ("error", "said", "words"),
    [
        (ConnectionError("no"), "Unauthenticated: RPC error: InvalidAuthToken", ("wants a token", "RAY_AUTH_TOKEN")),
        (RuntimeError("Version mismatch: The cluster was started with:\n Ray: 2.59"), "", ("2.59", "versions of Ray")),
        (ConnectionError("Could not find any running Ray instance"), "", ("any running Ray", "ray start --head")),
        (RuntimeError(), "", ("RuntimeError", "node of the cluster")),
    ],
)
def test_why_there_is_no_way_in(error: Exception, said: str, words: tuple[str, ...]) -> None:
    line = str(no_way_in(error, said))
    assert all(word in line for word in words)
    assert "\n" not in line
