"""What this machine has for a judge to run on, and what keeps an NVIDIA GPU that is there from being used.

Importing this module loads no torch; ``detect`` does. A GPU that is there and cannot be used is reported as a problem:
going on without it would be far slower, and nobody asked for that. Only a GPU that the user hides, by an empty
``CUDA_VISIBLE_DEVICES``, is left out without a word.
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

from judge.errors import EngineError, first_line

GIB = 2**30


DRIVERS_NEEDED = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
"""The oldest NVIDIA driver on Linux with which a torch built for that major version of CUDA runs."""


DEVICES = Path("/dev")
DRIVER_FILE = Path("/proc/driver/nvidia/version")
MEMORY_GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
"""Where Linux says which control groups (of a container, or of a job) this process is in, a line each."""


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

    ``memory_gib`` is the lesser of the machine's memory and the control groups' limits, in GiB. ``driver`` and
    ``cuda_build`` are versions, None where there is none. ``problem`` is one line: why a GPU that is there cannot be
    used, and the remedy.
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
    there = any(DEVICES.glob("nvidia[0-9]*")) or shutil.which("nvidia-smi") is not None
    driver = _driver() if there else None
    gpus, cuda_build, problem = _look_by_torch()
    if there and not _hidden() and not gpus and problem is None:
        problem = cuda_problem(driver, cuda_build, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return Hardware(usable_cpus(), _memory_gib(), gpus, driver, cuda_build, problem)


def require_usable(hardware: Hardware) -> None:
    """Raises EngineError where a GPU is there and cannot be used, with the problem and its remedy."""
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
    needed = driver_needed(cuda_build) if cuda_build else None
    needs = f"torch's CUDA {cuda_build} needs driver {needed or 'of its release'} or newer"
    if cuda_build is None:
        reason, remedy = (
            "this torch is a build for CPUs only",
            "run `make clean setup`, which installs the one for GPUs",
        )
    elif driver is None:
        reason, remedy = f"nvidia-smi names no driver, and {needs}", "install or update the driver"
    elif needed is not None and _numbers(driver) < _numbers(needed):
        reason, remedy = needs, "update the driver"
    elif visible is not None:
        reason = f"CUDA_VISIBLE_DEVICES={visible} hides every device"
        remedy = "name one that `nvidia-smi -L` lists, or unset it"
    else:
        reason = f"CUDA does not start, although {needs}"
        remedy = "update the driver and restart (in a container, give it the GPUs: `--gpus all`)"
    found = f"an NVIDIA GPU (driver {driver or 'not answering'}) cannot be used"
    return f'{found}: {reason}; {remedy}, or set CUDA_VISIBLE_DEVICES="" to do without the GPU'


def _look_by_torch() -> tuple[tuple[Gpu, ...], str | None, str | None]:
    """What torch sees: the visible GPUs, the CUDA it was built for, and what is wrong with torch or the first bad GPU.

    One GPU that fails is enough for there to be none: the user is to say whether the others are to be used without it.
    """
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        return (), None, f"torch cannot be imported ({first_line(error)}); run `make clean setup`"
    gpus: list[Gpu] = []
    with warnings.catch_warnings(action="ignore"):  # what torch warns of here is reported as a problem
        visible = 0 if _hidden() or not torch.cuda.is_available() else torch.cuda.device_count()
        for index in range(visible):
            try:
                free, total = torch.cuda.mem_get_info(index)
                # A card that is too old for this torch is listed like any other, and yet can compute nothing.
                torch.ones(1, device=f"cuda:{index}").add(1).item()
                capability = torch.cuda.get_device_capability(index)
                gpus.append(Gpu(index, torch.cuda.get_device_name(index), total / GIB, free / GIB, capability))
            except RuntimeError as error:
                failure = f"GPU {index} cannot be used ({first_line(error)})"
                remedy = "leave it out by CUDA_VISIBLE_DEVICES, or free, repair or replace it"
                return (), torch.version.cuda, f"{failure}; {remedy}"
    return tuple(gpus), torch.version.cuda, None


def _hidden() -> bool:
    """Whether the user hides every GPU on purpose."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")


def _driver() -> str | None:
    """The NVIDIA driver's version, from nvidia-smi or else from the kernel's module; None where neither says."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, timeout=SMI_TIMEOUT_S, check=True).stdout.decode()
    except (OSError, ValueError, subprocess.SubprocessError):
        said = ""
    found = re.match(r"\s*(\d+(?:\.\d+)+)\s*$", said, re.MULTILINE)
    found = found or re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", _read(DRIVER_FILE))
    return found[1] if found else None


def usable_cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gib() -> float:
    """The lesser of the machine's memory and the limits of this process's control groups, in GiB."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for line in _read(MEMBERSHIP).splitlines():
        number, kinds, path = line.split(":", 2)
        if number == "0":  # version 2 of control groups
            root, name = MEMORY_GROUPS, "memory.max"
        elif "memory" in kinds.split(","):  # version 1
            root, name = MEMORY_GROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        # A group is bound by those above it too; in a container only the root may be there.
        group = Path(path.lstrip("/"))
        limits = [_read(root / folder / name).strip() for folder in (group, *group.parents)]
        found += [int(limit) for limit in limits if limit.isdecimal()]  # "max" where there is none
    return min(found) / GIB


def _read(path: Path) -> str:
    """A file's text; an empty one where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))
