"""What a command says while it works, where there is no terminal to draw a bar on."""

import time
from collections.abc import Iterator

import pytest

from judge.cli import console
from judge.cli.console import TerminalProgress, terminal_progress

PATIENCE_S = 60


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> Iterator[TerminalProgress]:
    monkeypatch.setattr(console, "SILENCE_S", 0.01)
    with terminal_progress() as made:
        yield made


def said(capsys: pytest.CaptureFixture[str], text: str) -> str:
    """All that was said until a text is in it."""
    found, end = "", time.monotonic() + PATIENCE_S
    while text not in found:
        assert time.monotonic() < end, f"{text!r} was not said, but {found!r}"
        found += capsys.readouterr().err
        time.sleep(0.01)
    return found


def test_what_comes_before_anything_else_is_the_start(
    progress: TerminalProgress, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "starting: 0 s so far")
    progress.close()
    time.sleep(0.1)
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_a_wait_says_what_it_is_for_until_it_is_over(
    progress: TerminalProgress, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.busy("loading the model"):
        said(capsys, "loading the model: 0 s so far")
    time.sleep(0.1)
    capsys.readouterr()
    assert "loading" not in said(capsys, "so far")


def test_a_stage_speaks_before_its_first_answer_and_with_it(
    progress: TerminalProgress, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.begin("dialogues", 90, 0)
    said(capsys, "dialogues: none yet: 0 s so far")
    progress.under_way(9)
    said(capsys, "dialogues: 9 of 90 judgments")
    progress.advance(9, 100)
    progress.under_way(72)
    progress.advance(81, 900)
    assert "dialogues: 90 of 90 judgments" in capsys.readouterr().err
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_a_stage_does_not_speak_over_a_wait_inside_it_nor_count_its_time(
    progress: TerminalProgress, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.begin("dialogues", 2, 0)
    before = progress._started
    with progress.busy("loading"):
        assert "none yet" not in said(capsys, "loading: 0 s so far").partition("loading")[2]
    assert progress._started > before
    progress.finish()


def test_an_answer_may_come_while_something_else_goes_on(progress: TerminalProgress) -> None:
    progress.begin("dialogues", 2, 0)
    with progress.busy("loading"):
        progress.under_way(1)
    progress.advance(2, 10)


def test_a_stage_that_is_cut_short_is_silent(progress: TerminalProgress, capsys: pytest.CaptureFixture[str]) -> None:
    progress.begin("dialogues", 2, 0)
    progress.finish()
    time.sleep(0.1)
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr().err == ""
