"""What this machine has for a judge to run on, and what keeps an NVIDIA GPU that is there from being used.

Importing this module loads no torch; ``detect`` does. A GPU that is there and cannot be used is a problem to be told,
never a reason to go on without it; a GPU hidden by an empty ``CUDA_VISIBLE_DEVICES`` is meant to be left out.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from judge.errors import EngineError

GIB = 2**30


DRIVERS_NEEDED = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
"""The oldest NVIDIA driver on Linux with which a torch built for that major version of CUDA runs."""


DEVICES = Path("/dev")


DRIVER_FILE = Path("/proc/driver/nvidia/version")


MEMORY_GROUPS = Path("/sys/fs/cgroup")


MEMBERSHIP = Path("/proc/self/cgroup")


SMI_TIMEOUT_S = 20.0
"""Seconds that nvidia-smi is given to answer; a driver in trouble can keep it waiting for ever."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that can be used: its index among the visible devices, memory in GiB, compute capability."""

    index: int
    name: str
    total_gib: float
    free_gib: float
    capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Hardware:
    """What there is: CPUs and memory this process may use, visible GPUs, the NVIDIA driver, torch's CUDA.

    ``memory_gib`` is the machine's memory or the control group's limit, the less. ``driver`` and ``cuda_build`` are
    versions, None where there is none. ``problem`` is one line, with its remedy, where a GPU is there and unusable.
    """

    cpus: int
    memory_gib: float
    gpus: tuple[Gpu, ...]
    driver: str | None
    cuda_build: str | None
    problem: str | None


def detect() -> Hardware:
    """Look at this machine as this process sees it.

    Opens CUDA on every visible GPU, which takes some memory there; a process forked afterwards cannot use CUDA (a
    spawned one can). Raises nothing: what is wrong is in ``problem``.
    """
    expected = _evidence() and not _hidden()
    driver = _driver() if _evidence() else None
    gpus, cuda_build, problem = _look_by_torch()
    if expected and not gpus and problem is None:
        problem = cuda_problem(driver, cuda_build, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return Hardware(usable_cpus(), _memory_gib(), gpus, driver, cuda_build, problem)


def require_usable(hardware: Hardware) -> None:
    """EngineError with the problem and its remedy, where there is one."""
    if hardware.problem is not None:
        raise EngineError(hardware.problem)


def narrow_to(indices: Sequence[int]) -> None:
    """Let processes that start from now on see only these of the visible GPUs, by their index among them."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[i] if visible else str(i) for i in indices)


def driver_needed(cuda_build: str) -> str | None:
    """The oldest driver for a torch built for this CUDA (``"13.0"``); None for a CUDA this table does not know."""
    return DRIVERS_NEEDED.get(int(cuda_build.split(".", maxsplit=1)[0]))


def cuda_problem(driver: str | None, cuda_build: str | None, visible: str | None) -> str:
    """Why torch sees no GPU on a machine that has one, and the remedy, in one line.

    ``driver`` and ``cuda_build`` are versions or None; ``visible`` is ``CUDA_VISIBLE_DEVICES``, None where unset.
    """
    found = f"an NVIDIA GPU (driver {driver or 'not answering'}) cannot be used"
    reason, remedy = _reason_and_remedy(driver, cuda_build, visible)
    return f'{found}: {reason}; {remedy}, or set CUDA_VISIBLE_DEVICES="" to do without the GPU'


def _reason_and_remedy(driver: str | None, cuda_build: str | None, visible: str | None) -> tuple[str, str]:
    if cuda_build is None:
        return "this torch is a build for CPUs only", "run `make clean setup`, which installs the one for GPUs"
    needed = driver_needed(cuda_build)
    needs = f"torch's CUDA {cuda_build} needs driver {needed or 'of its release'} or newer"
    if driver is None:
        return f"nvidia-smi names no driver, and {needs}", "install or update the driver"
    if needed is not None and _numbers(driver) < _numbers(needed):
        return needs, "update the driver"
    if visible is not None:
        return f"CUDA_VISIBLE_DEVICES={visible} hides every device", "name one that `nvidia-smi -L` lists, or unset it"
    return (
        f"CUDA does not start, although {needs}",
        "update the driver and restart (in a container, give it the GPUs: `--gpus all`)",
    )


def _look_by_torch() -> tuple[tuple[Gpu, ...], str | None, str | None]:
    """What torch sees: the visible GPUs, the CUDA it was built for, and what is wrong with torch or with a GPU."""
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        return (), None, f"torch cannot be imported ({_first_line(error)}); run `make clean setup`"
    with warnings.catch_warnings(action="ignore"):  # what torch warns of here is told as a problem
        gpus, problem = ((), None) if _hidden() else _gpus(torch)
    return gpus, torch.version.cuda, problem


def _gpus(torch: ModuleType) -> tuple[tuple[Gpu, ...], str | None]:
    """All visible GPUs, or what is wrong with the first that fails."""
    gpus: list[Gpu] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        try:
            # One GPU, once it has added two numbers: a card too old for this torch is listed and yet can compute
            # nothing.
            free, total = torch.cuda.mem_get_info(index)
            torch.ones(1, device=f"cuda:{index}").add(1).item()
            capability = torch.cuda.get_device_capability(index)
            gpu = Gpu(index, torch.cuda.get_device_name(index), total / GIB, free / GIB, capability)
            gpus.append(gpu)
        except RuntimeError as error:
            failure = f"GPU {index} cannot be used ({_first_line(error)})"
            return (), f"{failure}; leave it out by CUDA_VISIBLE_DEVICES, or free, repair or replace it"
    return tuple(gpus), None


def _evidence() -> bool:
    """Whether there is an NVIDIA GPU, or was meant to be one."""
    return any(DEVICES.glob("nvidia[0-9]*")) or shutil.which("nvidia-smi") is not None


def _hidden() -> bool:
    """Whether the user hides every GPU on purpose."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")


def _driver() -> str | None:
    """The NVIDIA driver's version, from nvidia-smi or else from the kernel's module; None where neither says."""
    found = re.match(r"\s*(\d+(?:\.\d+)+)\s*$", _ask_smi(), re.MULTILINE)
    found = found or re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", _read(DRIVER_FILE))
    return found[1] if found else None


def _ask_smi() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, timeout=SMI_TIMEOUT_S, check=True).stdout.decode()
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""


def usable_cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gib() -> float:
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Limits in bytes of this process's control groups and those around them, of either version.
    limits = []
    for line in _read(MEMBERSHIP).splitlines():
        number, kinds, path = line.split(":", 2)
        if number == "0":
            limits += _limits_from(MEMORY_GROUPS, path, "memory.max")
        elif "memory" in kinds.split(","):
            limits += _limits_from(MEMORY_GROUPS / "memory", path, "memory.limit_in_bytes")
    memory_limits = limits
    return min([installed, *memory_limits]) / GIB


def _limits_from(root: Path, path: str, name: str) -> list[int]:
    """Limits set in the group at ``path`` and every group above it; in a container only the root may be there."""
    group = Path(path.lstrip("/"))
    texts = [_read(root / folder / name).strip() for folder in (group, *group.parents)]
    return [int(text) for text in texts if text.isdecimal()]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
