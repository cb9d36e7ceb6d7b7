"""What a run says of itself: which judge, data and machine, and how far it came; written first and last."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from judge.errors import InputError, discreet
from judge.hardware import Hardware
from judge.judging import Judge
from judge.store import Store


def begin(store: Store, judge: Judge, hardware: Hardware, about: dict[str, Any]) -> None:
    """Write the manifest of a run that begins or goes on; what earlier sessions noted of its course is kept."""
    own = {
        "format": 1,
        "esrp_judge": version("esrp-judge"),
        "judge": {"name": judge.name, "judge_id": judge.identity.judge_id},
        "identity": asdict(judge.identity),
        "machine": {"python": platform.python_version(), "torch": version("torch"), **asdict(hardware)},
        **about,
    }
    course = {
        "command": ["esrp-judge", *map(discreet, sys.argv[1:])],
        "engines": [],
        "started": _now(),
        "finished": None,
    }
    before = store.manifest or {}
    store.write_manifest({**own, **{key: before.get(key, value) for key, value in (course | {"seconds": 0.0}).items()}})


def note(store: Store, engines: list[dict[str, Any]], seconds: float) -> None:
    """Write how a session went that needed engines; the run is not finished, or not any more."""
    manifest = store.manifest
    if manifest and engines:
        total = round(manifest["seconds"] + seconds, 1)
        store.write_manifest({**manifest, "engines": engines, "seconds": total, "finished": None})


def finish(store: Store, result: dict[str, Any]) -> None:
    """Write how the run ended, and when it first did with what it now holds."""
    manifest = store.manifest or {}
    store.write_manifest({**manifest, "finished": manifest.get("finished") or _now(), **result})


def refuse_another(store: Store, judge: Judge, metrics: list[str]) -> None:
    """InputError where the folder holds judgments of another judge or on other metrics; it names what differs."""
    manifest = store.manifest
    if manifest is None:
        return
    if manifest["judge"]["judge_id"] != judge.identity.judge_id:
        differing, there = judge.identity.differences(manifest["identity"]), manifest["judge"]["name"]
        message = f"holds judgments of {there}, which differs from {judge.name} in {', '.join(differing)}"
    elif manifest["metrics"] != metrics:
        message = f"holds judgments on {', '.join(manifest['metrics'])} and not on {', '.join(metrics)}"
    else:
        return
    raise InputError(f"{store.folder}: {message}; choose another --run")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
