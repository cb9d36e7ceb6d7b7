"""A real Label Studio, in which three people rate what ``plan`` wrote; `make test-label-studio` installs one."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from judge.human_ratings.blinding import read_key
from tests.helpers.annotators import PLANNED, expected, given, results, write_data, written
from tests.helpers.commands import typed

PROGRAM = os.environ.get("LABEL_STUDIO", "")
TOKEN = secrets.token_hex(20)
QUIET = {
    "DJANGO_DB": "sqlite",
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
}
pytestmark = [
    pytest.mark.label_studio,
    pytest.mark.skipif(not PROGRAM, reason="no Label Studio here; `make test-label-studio` installs one"),
]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The API of a Label Studio of our own, empty, on this machine only."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("studio")
    command = [PROGRAM, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    command += ["--username", "a@example.com", "--password", secrets.token_urlsafe(12), "--user-token", TOKEN]
    environment = {**os.environ, **QUIET, "LABEL_STUDIO_BASE_DATA_DIR": str(folder)}
    environment.pop("PYTHONPATH", None)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        address, headers = f"http://127.0.0.1:{port}/api", {"Authorization": f"Token {TOKEN}"}
        with httpx.Client(base_url=address, headers=headers, timeout=120) as api:
            wait_for(api, server, folder / "log")
            yield api
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def wait_for(api: httpx.Client, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if api.get("/users/").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(1)
    pytest.fail(f"Label Studio did not start: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}")


def ask(api: httpx.Client, place: str, **content: Any) -> Any:
    answer = api.post(place, **content)
    assert answer.status_code == 201, answer.text[:500]
    return answer.json()


def export(api: httpx.Client, project: int) -> bytes:
    return api.get(f"/projects/{project}/export?exportType=JSON&download_all_tasks=true").content


@pytest.fixture(scope="module")
def rated(studio: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, pd.DataFrame]:
    """A plan that three people rated in a project: its folder, the project, and what they gave."""
    folder = tmp_path_factory.mktemp("rated")
    write_data(folder)
    how = ["--format", "label-studio", "--out", "plan.csv"]
    assert typed("plan", "scores.parquet", *PLANNED, *how, cwd=folder).returncode == 0
    config = (folder / "plan.label-studio.xml").read_text(encoding="utf-8")
    tasks = json.loads((folder / "plan.label-studio.json").read_text(encoding="utf-8"))
    project = ask(studio, "/projects/", json={"title": "ratings", "label_config": config})["id"]
    numbers = ask(studio, f"/projects/{project}/import?return_task_ids=true", json=tasks)["task_ids"]
    for name in ("b", "c"):
        ask(studio, "/users/", json={"email": f"{name}@example.com", "username": name})
    people = {str(user["id"]): user["id"] for user in studio.get("/users/").json()}
    cells = given(read_key(folder / "plan.key.json"), list(people))
    task_of = {task["data"]["task"]: number for task, number in zip(tasks, numbers, strict=True)}
    for (code, who), part in cells.groupby(["task", "annotator"]):
        content = {"result": results(part), "completed_by": people[str(who)]}
        ask(studio, f"/tasks/{task_of[str(code)]}/annotations/", json=content)
    return folder, project, cells


def test_ratings_by_three_people_come_back(studio: httpx.Client, rated: tuple[Path, int, pd.DataFrame]) -> None:
    folder, project, cells = rated
    (folder / "export.json").write_bytes(export(studio, project))
    how = ["--key", "plan.key.json", "--out", "ratings.csv"]
    result = typed("import-annotations", "export.json", *how, cwd=folder)
    assert (result.returncode, result.stderr) == (0, "")
    table = written(folder / "ratings.csv")
    pd.testing.assert_frame_equal(table, expected(folder / "plan.key.json", cells))
    assert table["annotator"].nunique() == 3 and cells["score"].isna().any()


def test_texts_come_back_as_they_went_in(studio: httpx.Client, rated: tuple[Path, int, pd.DataFrame]) -> None:
    folder, project, _ = rated
    sent = json.loads((folder / "plan.label-studio.json").read_text(encoding="utf-8"))
    assert [task["data"] for task in json.loads(export(studio, project))] == [task["data"] for task in sent]


@pytest.mark.parametrize(
    ("level", "code", "said"),
    [
        (9, 2, "metric 'fluency' is 9, not one of 1 to 5"),
        (3, 0, "answers to 'mood' (rating), which is no metric of this plan"),
    ],
)
def test_a_level_that_the_form_lacks_is_refused_and_a_control_that_is_not_ours_is_counted(
    studio: httpx.Client, rated: tuple[Path, int, pd.DataFrame], level: int, code: int, said: str
) -> None:
    """The server takes both."""
    folder, project, _ = rated
    tasks = json.loads((folder / "plan.label-studio.json").read_text(encoding="utf-8"))
    config = studio.get(f"/projects/{project}/").json()["label_config"]
    other = ask(studio, "/projects/", json={"title": said[:40], "label_config": config})["id"]
    (task,) = ask(studio, f"/projects/{other}/import?return_task_ids=true", json=tasks[:1])["task_ids"]
    answers = [
        {"from_name": control, "to_name": "dialogue", "type": "rating", "value": {"rating": chosen}}
        for control, chosen in (("fluency", level), ("mood", 3))
    ]
    ask(studio, f"/tasks/{task}/annotations/", json={"result": answers})
    (folder / f"{level}.json").write_bytes(export(studio, other))
    how = ["--key", "plan.key.json", "--out", f"{level}.csv"]
    result = typed("import-annotations", f"{level}.json", *how, cwd=folder)
    assert result.returncode == code and said in result.stdout + result.stderr
    assert (folder / f"{level}.csv").exists() == (code == 0)
