"""Published weights: downloaded, found, verified, refused; with a server of our own in the place of the real one."""

import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from served import Served

from raysd import doctor
from raysd.errors import BadInput
from raysd.machine import State
from raysd.model.published import PUBLISHED
from raysd.weights import FOLDER, weights_file

Command = Callable[..., tuple[int, str, str]]
CONTENT = bytes(range(256)) * 1024  # a quarter of a megabyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LOGIN = b"<html>Please log in to this network</html>"


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch, web: Served) -> Callable[..., str]:
    """Gives a row of the table an address of the server's, and what is known of its file; gives the row's name."""
    monkeypatch.delenv(FOLDER, raising=False)

    def published(name: str = "mn04_as", sha256: str | None = SHA256, url: str | None = None) -> str:
        row = replace(PUBLISHED[name], url=url or f"{web.url}/{name}", sha256=sha256, num_bytes=None)
        web.files.setdefault(f"/{name}", CONTENT)
        monkeypatch.setitem(PUBLISHED, name, row)
        return name

    return published


def a_state_dict(value: float) -> bytes:
    import torch

    content = io.BytesIO()
    torch.save({"weight": torch.full((4,), value)}, content)
    return content.getvalue()


def files(folder: Path) -> set[str]:
    """What a user sees in it."""
    return {path.name for path in folder.glob("*") if not path.name.endswith(".lock")}


def test_a_slow_download_that_breaks_off_goes_on_where_it_was(
    publish: Callable[..., str], web: Served, tmp_path: Path
) -> None:
    name, told, said = publish(), list[tuple[int, int | None]](), list[str]()
    web.breaks[f"/{name}"], web.pause_seconds = [1 << 16], 0.01
    path = weights_file(name, tmp_path, lambda done, total: told.append((done, total)), announce=said.append)
    assert path == tmp_path / "weights" / "mn04_as_mAP_432.pt"
    assert path.read_bytes() == CONTENT
    assert web.gets(f"/{name}") == ["", "bytes=65536-"]
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert len(said) == 1
    assert "MIT" in said[0]
    os.utime(path, (0, 0))  # so that it could be another file
    for _ in range(2):
        assert weights_file(name, tmp_path, offline=True, announce=said.append) == path
    assert len(web.asked) == 2
    assert len(said) == 1
    assert files(path.parent) == {path.name, f"{path.name}.json"}


@pytest.mark.parametrize(
    ("content", "url", "known", "message"),
    [
        (b"another file", None, SHA256, f"expected sha256:{SHA256}, found sha256:"),
        (LOGIN, None, None, "is no file of torch's"),
        (None, None, SHA256, "404"),
        (None, "http://127.0.0.1:9", SHA256, "http://127.0.0.1:9"),
    ],
    ids=["another file", "a log-in page", "gone", "no network"],
)
def test_what_cannot_be_fetched_is_said_in_a_line_with_the_fix(
    content: bytes | None,
    url: str | None,
    known: str | None,
    message: str,
    publish: Callable[..., str],
    web: Served,
    tmp_path: Path,
) -> None:
    name = publish(sha256=known, url=url)
    web.files = {} if content is None else {f"/{name}": content}
    with pytest.raises(BadInput, match=re.escape(message)) as raised:
        weights_file(name, tmp_path)
    for part in (PUBLISHED[name].url, str(tmp_path / "weights"), "mn04_as_mAP_432.pt", FOLDER):
        assert str(part) in str(raised.value)
    assert files(tmp_path / "weights") == set()


def test_what_raysd_may_not_or_shall_not_download_is_not_asked_for(
    publish: Callable[..., str], web: Served, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"byola_512 .* evaluation only: https://.*LICENSE.*AudioNTT2020.*d512\.pth"):
        weights_file("byola_512", tmp_path)
    with pytest.raises(BadInput, match=rf"raysd weights fetch mn04_as .*{web.url}/mn04_as"):
        weights_file(publish(), tmp_path, offline=True)
    with pytest.raises(BadInput, match="did you mean 'mn04_as'"):
        weights_file("mn04", tmp_path)
    assert not web.asked
    assert not files(tmp_path)


def test_a_folder_of_ones_own_comes_first_and_is_verified_too(
    publish: Callable[..., str], web: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, cache = tmp_path / "own", tmp_path / "cache"
    own.mkdir()
    path = own / "mn04_as_mAP_432.pt"
    name = publish()
    monkeypatch.setenv(FOLDER, str(own))
    path.write_bytes(CONTENT)
    assert weights_file(name, cache, announce=lambda line: None) == path
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(BadInput, match=f"mn04_as_mAP_432.pt: expected sha256 {SHA256} of mn04_as, found "):
        weights_file(name, cache)
    assert path.exists(), "it is the user's"
    assert not web.asked
    monkeypatch.setenv(FOLDER, str(tmp_path / "absent"))
    with pytest.raises(BadInput, match=f"{FOLDER}: .*absent is no folder"):
        weights_file(name, cache)
    assert doctor.weights(cache).state is State.fails


def test_where_no_checksum_is_published_that_of_the_first_use_counts(
    publish: Callable[..., str], web: Served, tmp_path: Path
) -> None:
    name = publish("mn20_as", sha256=None)
    web.files[f"/{name}"] = a_state_dict(1.0)
    path = weights_file(name, tmp_path, announce=lambda line: None)
    path.write_bytes(a_state_dict(2.0))
    with pytest.raises(BadInput, match=r"at the first use of mn20_as, found .*mn20_as_mAP_478\.pt\.json"):
        weights_file(name, tmp_path)
    path.unlink()
    web.files[f"/{name}"] = a_state_dict(3.0)  # nor is another one downloaded in its place
    with pytest.raises(BadInput, match="expected sha256:"):
        weights_file(name, tmp_path)
    (tmp_path / "weights" / "mn20_as_mAP_478.pt.json").unlink()
    assert weights_file(name, tmp_path, announce=lambda line: None) == path
    path.write_bytes(CONTENT)  # once its authors publish one, that counts
    assert weights_file(publish("mn20_as"), tmp_path) == path


def test_of_several_processes_one_downloads_and_one_speaks_of_the_licence(
    publish: Callable[..., str], web: Served, tmp_path: Path
) -> None:
    name = publish()
    web.pause_seconds = 0.02
    code = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from raysd.model.published import PUBLISHED; from raysd.weights import weights_file\n"
        "row = replace(PUBLISHED['mn04_as'], url=sys.argv[1], sha256=sys.argv[2], num_bytes=None)\n"
        "PUBLISHED['mn04_as'] = row\n"
        "print(weights_file('mn04_as', Path(sys.argv[3])))"
    )
    command = [sys.executable, "-c", code, f"{web.url}/{name}", SHA256, str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ended = [one.communicate(timeout=120) for one in [subprocess.Popen(command, **pipes) for _ in range(3)]]
    assert {printed for printed, _ in ended} == {f"{tmp_path}/weights/mn04_as_mAP_432.pt\n"}
    assert sum(said.count("licence") for _, said in ended) == 1
    assert web.gets(f"/{name}") == [""]


def test_fetch_list_and_verify_from_the_command_line(
    raysd: Command, publish: Callable[..., str], web: Served, tmp_path: Path
) -> None:
    place = ("--cache", tmp_path)
    name = publish("mn05_as", sha256=None)
    web.files[f"/{name}"] = a_state_dict(1.0)

    def here() -> dict[str, tuple[str | None, bool]]:
        status, printed, _ = raysd("weights", "list", "--json", "--results", tmp_path / "results", *place)
        assert status == 0
        rows = json.loads(printed)["published"]
        return {row["name"]: (row["path"], row["verified"]) for row in rows if row["path"]}

    assert here() == {}
    path = tmp_path / "weights" / "mn05_as_mAP_443.pt"
    status, printed, said = raysd("weights", "fetch", "mn05_as", *place)
    assert (status, printed) == (0, f"{path}\n")
    assert "licence MIT" in said
    assert here() == {"mn05_as": (str(path), True)}
    assert doctor.weights(tmp_path).found == "mn05_as verified"
    status, printed, said = raysd("weights", "verify", *place)
    assert (status, printed) == (1, "")
    assert re.search(r"mn05_as.*the tensors are not those of mn05_as: they lack features\.0\.0\.weight", said)
    path.touch()
    assert here() == {"mn05_as": (str(path), False)}
    status, printed, _ = raysd("weights", "list", "--results", tmp_path / "results", *place)
    assert "not yet verified" in printed
    assert "own pre-training" in printed
    assert not (tmp_path / "results").exists()
    assert raysd("weights", "fetch", "mn05_as", "mn5_as", *place)[0] == 2


class Harm:
    """What a pickle can do: a file named in it appears when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_verify_loads_no_code(raysd: Command, tmp_path: Path) -> None:
    import torch

    harm = Harm(tmp_path / "harm")
    torch.save({"weight": harm}, tmp_path / "new.pt")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(harm, protocol=2))
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "good.pt").write_bytes(a_state_dict(1.0))
    names = ("new.pt", "old.pth", "text.pt", "good.pt", "absent.pt")
    status, printed, said = raysd("weights", "verify", *(tmp_path / name for name in names))
    assert status == 1
    assert [line.partition(": ")[0] for line in said.splitlines()] == [
        str(tmp_path / name) for name in names if name != "good.pt"
    ]
    assert "1 tensors" in printed
    assert not harm.path.exists()


def test_list_has_the_weights_of_own_pretraining(raysd: Command, tmp_path: Path) -> None:
    import torch

    from raysd.results.store import Results
    from raysd.results.weights import write_weights

    results, about = Results(tmp_path / "results"), {"name": "esc10", "licence": "CC BY"}
    write_weights(results, "a" * 20, {"x": torch.ones(1)}, about | {"encoder": {"name": "cnn", "width": 0.5}})
    write_weights(results, "b" * 20, {"x": torch.ones(1)}, about | {"name": "copied.pt"})
    status, printed, _ = raysd("weights", "list", "--results", results.root, "--cache", tmp_path)
    rows = [line.split() for line in printed.splitlines()]
    assert status == 0
    assert ["a" * 20, "esc10", "cnn,", "width", "0.5", "CC", "BY"] in rows
    assert ["b" * 20, "copied.pt", "not", "known", "CC", "BY"] in rows


def test_the_real_weights_are_those_of_the_table(
    raysd: Command, shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(shared_dir / "weights"))
    status, printed, said = raysd("weights", "verify", "--cache", tmp_path)
    assert status == 0, said
    assert "as published for mn04_as" in printed
    assert "308 tensors loaded, 4 of the tagging head not used" in printed
