"""Checks of a machine: each on this one, and on one where it fails."""

import os
import resource
import shutil
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import raysd
from raysd import machine
from raysd.machine import GIB, Finding, State


def expect(finding: Finding, state: State, *words: str) -> None:
    """`words` stand in what was found, or in the fix, which is there where something is to be done."""
    assert finding.state == state, finding
    for word in words:
        assert word in finding.found + finding.fix, finding
    assert bool(finding.fix) == (state in (State.warning, State.fails)), finding
    assert "\n" not in finding.found + finding.fix


def needs(monkeypatch: pytest.MonkeyPatch, *dependencies: str, python: str = ">=3.11") -> None:
    project = {"version": "0.1.0", "requires-python": python, "dependencies": list(dependencies)}
    monkeypatch.setattr(machine, "_project", lambda: project)


def command(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize("check", [machine.python, machine.this_package, machine.packages, machine.clock])
def test_this_machine_runs_raysd(check: Callable[[], Finding]) -> None:
    expect(check(), State.ok)


@pytest.mark.parametrize("name", machine.NAMED)
def test_named_packages_fit_the_pins(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    expect(machine.package(name), State.ok)
    needs(monkeypatch, f"{name}>=99")
    expect(machine.package(name), State.fails, "raysd needs >=99", f'pip install "{name}>=99"')
    monkeypatch.setattr(machine.metadata, "version", lambda name: _absent(name))
    expect(machine.package(name), State.fails, f"{name} is not installed")


def _absent(name: str) -> str:
    raise machine.metadata.PackageNotFoundError(name)


@pytest.mark.parametrize(("name", "module"), [("torch", "torch"), ("torchaudio", "raysd.model._torchaudio")])
def test_a_package_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, name: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    expect(machine.package(name), State.fails, "cannot be imported", "--force-reinstall")
    assert machine.num_gpus() == 0


def test_other_packages_and_python_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    needs(monkeypatch, "numpy<1", "no-such-package[extra]>=2", "torch>=99", "pyyaml", python=">=3.99")
    found = machine.packages()
    expect(found, State.fails, "numpy", "no-such-package is not installed", '"no-such-package[extra]>=2"')
    assert "torch" not in found.found
    expect(machine.python(), State.fails, "raysd needs >=3.99")


def test_without_a_checkout_the_installed_package_tells_the_pins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(raysd, "__file__", str(tmp_path / "raysd" / "__init__.py"))
    names = {wanted.name for wanted in machine._requirements()}
    assert {"torch", "ray", "numpy"} <= names
    assert "pytest" not in names
    expect(machine.package("torch"), State.ok)


def test_versions_name_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert {"python", "raysd", *machine.NAMED} == set(machine.versions())
    copy = shutil.copytree(Path(raysd.__file__).parent, tmp_path / "raysd")
    shutil.copy(Path(raysd.__file__).parents[1] / "pyproject.toml", tmp_path)
    before = machine.versions()["raysd"]
    monkeypatch.setattr(raysd, "__file__", str(copy / "__init__.py"))
    assert machine.versions()["raysd"] == before
    (copy / "errors.py").write_text("changed = True\n", encoding="utf-8")
    assert machine.versions()["raysd"] != before


def test_a_container_with_less_time_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "; they compute in " in machine.cores().found
    monkeypatch.setattr(machine, "num_cores", lambda: 16)
    monkeypatch.setattr(machine, "_words", lambda path: ["200000", "100000"])
    expect(machine.cores(), State.warning, "the time of 2")
    monkeypatch.setattr(machine, "_words", lambda path: ["max", "100000"])
    expect(machine.cores(), State.ok)


def test_memory_within_the_limit_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_cores", lambda: 8)
    for limit, state in ((GIB // 2, State.fails), (2 * GIB, State.warning)):
        monkeypatch.setattr(machine, "_words", lambda path, limit=limit: [str(limit)])
        expect(machine.memory(), state, f"of {limit / GIB:.1f} GiB")
    assert "cpus_per_worker=" in machine.memory().fix


def test_no_gpu() -> None:
    if torch.cuda.is_available() or shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    expect(machine.gpus(), State.ok, "trials run on the CPU")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gpus_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(warnings.warn("driver too old", stacklevel=1)))
    command(tmp_path, "nvidia-smi", "exit 9")
    expect(machine.gpus(), State.warning, "nvidia-smi is there, but fails", "driver")

    command(tmp_path, "nvidia-smi", 'echo "NVIDIA H200"; echo "NVIDIA L4"')
    assert machine.nvidia_smi() == ["NVIDIA H200", "NVIDIA L4"]
    monkeypatch.setattr(torch.version, "cuda", None)
    expect(machine.gpus(), State.fails, "NVIDIA H200, NVIDIA L4", "CPU build", "pip install --force-reinstall torch==")

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    expect(machine.gpus(), State.fails, "unset CUDA_VISIBLE_DEVICES")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    expect(machine.gpus(), State.fails, "driver too old", "CUDA 13.0")


@pytest.mark.parametrize("broken", [False, True])
def test_gpus_are_tried(monkeypatch: pytest.MonkeyPatch, broken: bool) -> None:
    def zeros(*shape: int, device: str) -> None:
        if broken:
            raise RuntimeError("CUDA error: all CUDA-capable devices\nare busy")

    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "device": lambda index: nullcontext(),
        "mem_get_info": lambda: (70 * GIB, 80 * GIB),
        "get_device_name": lambda: "NVIDIA H100",
        "is_bf16_supported": lambda including_emulation: True,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch, "zeros", zeros)
    if broken:
        expect(machine.gpus(), State.fails, "devices are busy", "nvidia-smi")
    else:
        expect(machine.gpus(), State.ok, "NVIDIA H100, 70.0 GiB free of 80.0 GiB, bf16 is fast; NVIDIA H100")
        assert machine.num_gpus() == 2


def test_a_compiler_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "my-c++")
    expect(machine.compiler(), State.warning, "no my-c++", "scale.compile")
    command(tmp_path, "my-c++", "true")
    expect(machine.compiler(), State.ok, str(tmp_path))


def test_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=60 << 20, total=64 << 20))
    expect(machine.shared_memory(tmp_path), State.warning, "60.0 MiB free of 64.0 MiB", "--shm-size")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2 * GIB, total=2 * GIB))
    expect(machine.shared_memory(tmp_path), State.ok)
    expect(machine.shared_memory(tmp_path / "none"), State.unknown)


@pytest.mark.parametrize(
    ("limits", "state"),
    [
        ((1024, 4096), State.warning),
        ((1024, 65536), State.ok),
        ((1024, resource.RLIM_INFINITY), State.ok),
    ],
)
def test_the_limit_of_open_files(monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], state: State) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    expect(machine.open_files(), state)


def test_a_clock_that_starts_anew() -> None:
    expect(machine.clock(lambda: 0.0), State.fails, "1970-01-01", "set the clock")


def test_cores_are_those_of_the_process() -> None:
    assert 1 <= machine.num_cores() <= (os.cpu_count() or 1)
