"""Scenarios of a test's own, and short pauses between tries."""

from pathlib import Path

import pytest

import judge.engines.patient_client as client_module


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses between tries."""
    monkeypatch.setattr(client_module, "LONGEST_PAUSE_S", 0.2)


@pytest.fixture
def scenarios(tmp_path: Path) -> Path:
    """Two characters, one of them with a profile, in three scenarios."""
    path = tmp_path / "scenarios.yaml"
    path.write_text(
        """
characters:
  - {name: 甲, profile: 守灯人}
  - {name: 乙}
scenarios:
  - {id: 1, question: 我睡不着。, follow_ups: [还是睡不着。]}
  - {id: 2, question: 我升职了！, follow_ups: [谢谢你。, 再见。]}
  - {id: third, question: 我很累。}
""",
        encoding="utf-8",
    )
    return path
