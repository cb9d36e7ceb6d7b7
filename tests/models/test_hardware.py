"""A GPU that is there is used, or its problem is told; a hidden one is left out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from judge.errors import EngineError
from judge.models import hardware as module
from judge.models.hardware import Gpu, Hardware, cuda_problem, detect, driver_needed, narrow_to, require_usable

cpu_build_only = pytest.mark.skipif(
    torch.version.cuda is not None, reason="needs the torch that is built for CPUs only"
)


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No devices, no nvidia-smi, no kernel module and no control groups, whatever the machine has."""
    for name in ("DEVICES", "DRIVER_FILE", "MEMORY_GROUPS", "MEMBERSHIP"):
        monkeypatch.setattr(module, name, tmp_path / name.lower())
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def install_smi(tmp_path: Path, script: str) -> None:
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)


def install_device(tmp_path: Path, name: str) -> None:
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / name).touch()


def install_torch(monkeypatch: pytest.MonkeyPatch, available: bool = True, failing: int | None = None) -> None:
    """A torch that sees two GPUs of 80 GiB, 60 of them free; the one numbered ``failing`` can compute nothing."""

    def ones(size: int, device: str) -> torch.Tensor:
        if device == f"cuda:{failing}":
            raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")
        return torch.ones(size)

    def is_available() -> bool:
        warnings.warn("CUDA initialization: ...", stacklevel=1)
        return available

    cuda = SimpleNamespace(
        is_available=is_available,
        device_count=lambda: 2,
        mem_get_info=lambda index: (60 * 2**30, 80 * 2**30),
        get_device_name=lambda index: f"NVIDIA X{index}",
        get_device_capability=lambda index: (9, 0),
    )
    fake = SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda="13.0"), ones=ones)
    monkeypatch.setitem(sys.modules, "torch", fake)


def test_importing_the_module_loads_no_torch() -> None:
    program = "import sys, judge.models.hardware; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@cpu_build_only
def test_no_gpu_is_no_problem() -> None:
    hardware = detect()
    assert (hardware.gpus, hardware.driver, hardware.cuda_build, hardware.problem) == ((), None, None, None)
    assert hardware.cpus >= 1
    assert 0.1 < hardware.memory_gib < 2**20
    require_usable(hardware)


@cpu_build_only
def test_a_gpu_and_a_torch_for_cpus_is_a_problem_with_its_remedy(tmp_path: Path) -> None:
    install_smi(
        tmp_path, 'test "$*" = "--query-gpu=driver_version --format=csv,noheader" && echo 570.86.15 && echo 570.86.15'
    )
    hardware = detect()
    assert hardware.driver == "570.86.15"
    assert hardware.problem is not None
    assert "570.86.15" in hardware.problem
    assert "this torch is a build for CPUs only" in hardware.problem
    assert "`make clean setup`" in hardware.problem
    assert "\n" not in hardware.problem
    with pytest.raises(EngineError, match="make clean setup"):
        require_usable(hardware)


@cpu_build_only
@pytest.mark.parametrize("hiding", ["", "-1", " "])
def test_a_gpu_hidden_on_purpose_is_left_out(hiding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_smi(tmp_path, "echo 570.86.15")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hiding)
    hardware = detect()
    assert (hardware.gpus, hardware.driver, hardware.problem) == ((), "570.86.15", None)


def test_a_hidden_gpu_is_not_even_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    install_torch(monkeypatch, failing=0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert detect().problem is None


@cpu_build_only
@pytest.mark.parametrize(("device", "is_gpu"), [("nvidia0", True), ("nvidia12", True), ("nvidiactl", False)])
def test_a_device_file_is_evidence_enough(device: str, is_gpu: bool, tmp_path: Path) -> None:
    install_device(tmp_path, device)
    hardware = detect()
    assert (hardware.problem is not None) == is_gpu
    assert hardware.driver is None


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build  (root@host)",
    ],
)
def test_the_kernel_names_the_driver_where_nvidia_smi_fails(line: str, tmp_path: Path) -> None:
    install_smi(tmp_path, "echo '9.9.9'; echo 'NVIDIA-SMI has failed'; exit 9")
    (tmp_path / "driver_file").write_text(f"{line}\nGCC version:  gcc version 12.3.0 (Ubuntu)\n", encoding="utf-8")
    assert detect().driver == "535.104.05"


def test_no_other_number_is_taken_for_the_drivers(tmp_path: Path) -> None:
    install_device(tmp_path, "nvidia0")
    (tmp_path / "driver_file").write_text("GCC version:  gcc version 12.3.0 (Ubuntu)\n", encoding="utf-8")
    assert detect().driver is None


def test_a_driver_that_never_answers_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMI_TIMEOUT_S", 0.2)
    install_smi(tmp_path, "exec /bin/sleep 30")
    began = time.monotonic()
    hardware = detect()
    assert time.monotonic() - began < 20
    assert hardware.driver is None
    assert "driver not answering" in str(hardware.problem)


def test_every_usable_gpu_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_smi(tmp_path, "echo 580.65.06")
    install_torch(monkeypatch)
    hardware = detect()
    assert hardware.gpus == (Gpu(0, "NVIDIA X0", 80.0, 60.0, (9, 0)), Gpu(1, "NVIDIA X1", 80.0, 60.0, (9, 0)))
    assert (hardware.driver, hardware.cuda_build, hardware.problem) == ("580.65.06", "13.0", None)


def test_a_gpu_that_computes_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_smi(tmp_path, "echo 580.65.06")
    install_torch(monkeypatch, failing=1)
    hardware = detect()
    assert hardware.gpus == ()
    assert str(hardware.problem).startswith(
        "GPU 1 cannot be used (CUDA error: no kernel image is available); leave it out"
    )
    assert "\n" not in str(hardware.problem)


def test_a_driver_too_old_for_torch_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_smi(tmp_path, "echo 535.104.05")
    install_torch(monkeypatch, available=False)
    problem = str(detect().problem)
    assert "driver 535.104.05" in problem
    assert "needs driver 580.65.06 or newer; update the driver" in problem


def test_devices_hidden_by_mistake_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_smi(tmp_path, "echo 590.1")
    install_torch(monkeypatch, available=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert "CUDA_VISIBLE_DEVICES=7 hides every device; name one that `nvidia-smi -L` lists" in str(detect().problem)


def test_a_torch_that_cannot_be_imported_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_smi(tmp_path, "echo 580.65.06")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "torch cannot be imported" in str(detect().problem)
    assert "`make clean setup`" in str(detect().problem)


@pytest.mark.parametrize(
    ("cuda_build", "driver"),
    [("11.8", "450.80.02"), ("12.1", "525.60.13"), ("12.8", "525.60.13"), ("13.0", "580.65.06"), ("14.0", None)],
)
def test_the_driver_that_each_cuda_needs(cuda_build: str, driver: str | None) -> None:
    assert driver_needed(cuda_build) == driver


@pytest.mark.parametrize(
    ("driver", "cuda_build", "said"),
    [
        ("525.60.12", "12.8", "needs driver 525.60.13 or newer; update the driver"),
        ("525.60.13", "12.8", "CUDA does not start"),
        ("1000.1", "13.0", "CUDA does not start"),  # compared as numbers: as text it would be older than 580
        (None, "13.0", "names no driver, and torch's CUDA 13.0 needs driver 580.65.06"),
        ("580.65.06", "14.0", "needs driver of its release or newer"),
        ("580.65.06", None, "build for CPUs only"),
    ],
)
def test_the_reason_fits_the_driver_and_the_build(driver: str | None, cuda_build: str | None, said: str) -> None:
    problem = cuda_problem(driver, cuda_build, None)
    assert said in problem
    assert problem.endswith('or set CUDA_VISIBLE_DEVICES="" to do without the GPU')


@pytest.mark.parametrize(
    ("membership", "limits", "gib"),
    [
        ("0::/job/step\n", {"job/memory.max": "1073741824", "job/step/memory.max": "max"}, 1.0),
        ("0::/gone\n", {"memory.max": "536870912"}, 0.5),
        ("0::/\n4:cpu,memory:/job\n", {"memory/job/memory.limit_in_bytes": "268435456"}, 0.25),
        ("4:cpu,memory:/job\n", {"memory/memory.limit_in_bytes": "268435456", "memory.max": "1"}, 0.25),
    ],
)
def test_a_control_group_caps_the_memory(
    membership: str, limits: dict[str, str], gib: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "membership").write_text(membership, encoding="utf-8")
    for name, limit in limits.items():
        path = tmp_path / "memory_groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{limit}\n", encoding="utf-8")
    assert detect().memory_gib == gib


def test_a_limit_beyond_the_machines_memory_is_none(tmp_path: Path) -> None:
    free = detect().memory_gib
    (tmp_path / "membership").write_text("0::/\n", encoding="utf-8")
    (tmp_path / "memory_groups").mkdir()
    (tmp_path / "memory_groups" / "memory.max").write_text(str(2**62), encoding="utf-8")
    assert detect().memory_gib == free


def test_hardware_without_a_problem_is_usable() -> None:
    require_usable(Hardware(1, 1.0, (), None, None, None))
    with pytest.raises(EngineError, match=r"^it is broken$"):
        require_usable(Hardware(1, 1.0, (), None, None, "it is broken"))


@pytest.mark.parametrize(
    ("visible", "indices", "then"), [(None, [1], "1"), ("4,7,2", [2, 0], "2,4"), ("GPU-a,GPU-b", [1], "GPU-b")]
)
def test_gpus_are_narrowed_to_by_their_index_among_the_visible(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, indices: list[int], then: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    narrow_to(indices)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == then
