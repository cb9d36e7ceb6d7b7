"""The command as a user types it, in this process or in one of its own, and what every answer of it must be."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from judge.cli import main

Result = subprocess.CompletedProcess[str]


def esrp_judge(*arguments: object, cwd: Path, **environment: str) -> Result:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "judge", *map(str, arguments)]
    return subprocess.run(
        command, check=False, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )


def typed(*arguments: object, cwd: Path, **environment: str) -> Result:
    """The same in this process, which is quicker, and in which warnings are errors."""
    out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(cwd)
    try:
        with (
            mock.patch.object(sys, "argv", ["esrp-judge", *map(str, arguments)]),
            mock.patch.dict(os.environ, environment),
            pytest.raises(SystemExit) as ended,
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            main()
    finally:
        os.chdir(before)
    return Result(list(map(str, arguments)), ended.value.code, out.getvalue(), err.getvalue())


def without_waits(said: str) -> list[str]:
    """The lines of stderr without those that a slow machine adds, where a wait says what it is for."""
    return [line for line in said.splitlines() if not line.endswith(" s so far")]


def refused(result: Result, *parts: str, code: int = 2) -> None:
    """One line on stderr that has all these parts, and nothing else."""
    assert (result.returncode, result.stdout) == (code, ""), result.stderr
    (line,) = without_waits(result.stderr)
    for part in parts:
        assert part in line


def read(result: Result) -> dict[str, Any]:
    """Strict JSON, and nothing else on the terminal."""

    def strict(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    assert (result.returncode, without_waits(result.stderr)) == (0, []), result.stderr
    return json.loads(result.stdout, parse_constant=strict)
