"""Characters and scenarios that are in an object store, which stays an address wherever it is written down."""

import json
from pathlib import Path

import pytest

from judge import CollectOptions, InputError, collect, plan_collection
from judge.remote import write
from tests.helpers.commands import typed
from tests.helpers.object_store import BUCKET
from tests.helpers.paths import EXAMPLE
from tests.helpers.serving import serving
from tests.helpers.talkers import Talker


@pytest.mark.store
def test_scenarios_in_a_store_are_played(store: None, scenarios: Path, tmp_path: Path) -> None:
    address = f"s3://{BUCKET}/mine/scenarios.yaml"
    write(address, scenarios.read_bytes())
    with serving(Talker()) as url:
        result = collect([Path(address)], CollectOptions(url=url, out=tmp_path / "out"))
    assert (result.dialogues, result.compared) == (6, ())
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["scenarios"]["paths"] == [address]


@pytest.mark.store
def test_dialogues_in_a_store_are_named_by_their_address(
    store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"s3://{BUCKET}/{EXAMPLE[0].name}"
    write(address, EXAMPLE[0].read_bytes())
    folders = []
    with serving(Talker()) as url:
        for name in ("here", "there"):
            (tmp_path / name).mkdir()
            said = typed("collect", "--url", url, "--from", address, "--rounds", 1, cwd=tmp_path / name)
            assert said.returncode == 0 and f"next: esrp-judge score {address} results/" in said.stdout
            folders += [folder.name for folder in (tmp_path / name / "results").iterdir()]
    assert len(set(folders)) == 1  # the address is the same from everywhere


def test_patterns_take_what_fits_and_are_refused_where_nothing_does(scenarios: Path, tmp_path: Path) -> None:
    options = CollectOptions(model="stand-in")
    assert plan_collection([tmp_path / "*.yaml"], options).dialogues == 6
    (tmp_path / "second.yaml").write_bytes(scenarios.read_bytes())
    for pattern, named in (("*.yaml", "stands alone"), ("*.yml", "no file or folder fits")):
        with pytest.raises(InputError, match=named):
            plan_collection([tmp_path / pattern], options)
