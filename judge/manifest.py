"""What a run says of itself: which judge, data and machine, and how far it came; written first and last."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from judge.errors import InputError
from judge.hardware import Hardware
from judge.judging import Judge
from judge.store import Store


def begin(store: Store, judge: Judge, hardware: Hardware, about: dict[str, Any]) -> None:
    """Write the manifest of a run that begins or goes on; what an earlier session noted of its course is kept."""
    own = {
        "format": 1,
        "esrp_judge": version("esrp-judge"),
        "judge": {"name": judge.name, "judge_id": judge.identity.judge_id},
        "identity": asdict(judge.identity),
        "machine": {"python": platform.python_version(), "torch": version("torch"), **asdict(hardware)},
        **about,
    }
    course = {"command": ["esrp-judge", *sys.argv[1:]], "engine": None, "started": _now(), "finished": None, "seconds": 0.0}
    before = store.manifest or {}
    store.write_manifest({**own, **{key: before.get(key, value) for key, value in course.items()}})


def finish(store: Store, engine: str | None, seconds: float, result: dict[str, Any]) -> None:
    """Write how the run ended; its course only where an engine was needed, so that looking again changes nothing."""
    manifest = store.manifest or {}
    if engine is not None:
        total = round(manifest["seconds"] + seconds, 1)
        manifest |= {"engine": engine, "finished": _now(), "seconds": total}
    store.write_manifest({**manifest, **result})


def refuse_another_judge(store: Store, judge: Judge) -> None:
    """InputError where the folder holds judgments of another judge; it names what differs."""
    manifest = store.manifest
    if manifest is None or manifest["judge"]["judge_id"] == judge.identity.judge_id:
        return
    names = ", ".join(judge.identity.differences(manifest["identity"])) or "name"
    raise InputError(
        f"{store.folder}: holds judgments of {manifest['judge']['name']}, which differs from {judge.name} in {names}; "
        "choose another --run"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
