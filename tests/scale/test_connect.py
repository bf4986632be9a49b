"""A Ray of one's own: alone, on loopback, and gone with its run, however that ends."""

import os
import re
import signal
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from workplace import STUDY, Workplace, epochs_kept, family, until

LONG = STUDY.replace("seeds: [0, 1]", "seeds: [0]\nreferences: []\nchanges: { train: { epochs: 4000 } }")


@pytest.fixture
def strangers_ray() -> Iterator[socket.socket]:
    """Somebody else's Ray, as far as that can be told from outside."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


def test_a_ray_of_ones_own_is_alone_on_loopback_and_gone_when_its_driver_is_killed(
    tmp_path: Path, corpus: Callable[[int], Path], strangers_ray: socket.socket
) -> None:
    temporary = tmp_path / ("temporary" * 12)  # longer than the path of a socket may be
    (temporary / "ray").mkdir(parents=True)
    host, port = strangers_ray.getsockname()
    (temporary / "ray" / "ray_current_cluster").write_text(f"{host}:{port}", encoding="utf-8")
    place = Workplace(tmp_path, corpus(2020), LONG, "a study (1) ü.yaml")
    study = place.start(env={"TMPDIR": str(temporary)})
    until(lambda: epochs_kept(tmp_path / "results"), "the first epoch")

    processes = family(study)
    (folder,) = set(re.findall(r"/tmp/raysd-\w+", " ".join(processes.values())))
    listen = listening(processes)
    assert len(listen) > 5  # Ray's processes are among them
    assert {address for address, _ in listen} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}

    os.kill(study.pid, signal.SIGKILL)
    study.communicate()
    until(lambda: not family(study), "Ray's processes to end", 20)
    until(lambda: not Path(folder).exists(), "its folder to go", 20)
    with pytest.raises(BlockingIOError):  # nobody has called
        strangers_ray.accept()


def listening(processes: Collection[int]) -> list[tuple[str, int]]:
    """Address and port of every TCP socket on which one of `processes` listens."""
    held = set[str]()
    for number in processes:
        with suppress(OSError):  # it ended meanwhile
            for handle in Path(f"/proc/{number}/fd").iterdir():
                with suppress(OSError):
                    held.add(os.readlink(handle))
    found = []
    for table, family_ in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in held:
                address, port = local.split(":")
                words = [int(address[i : i + 8], 16) for i in range(0, len(address), 8)]
                found.append((socket.inet_ntop(family_, struct.pack(f"={len(words)}I", *words)), int(port, 16)))
    return found
