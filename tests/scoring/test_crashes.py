"""Kill -9 of a run; and a few of each crash trial of ``make torture``: the end is always that of an unbroken run."""

from pathlib import Path

import pytest

from tests.torture import clashes, disks, kills, runs, spoilt, writes


def test_a_run_that_is_killed_has_what_it_reported_and_ends_as_an_unbroken_one(
    stand_in: Path, short_rubric: Path, tmp_path: Path
) -> None:
    data, reported, run = runs.write_data(tmp_path / "data.jsonl", 4), tmp_path / "reported", tmp_path / "run"
    how = {"rubric": short_rubric, "metrics": ("fluency", "speech_style")}
    unbroken = runs.complete(data, tmp_path / "unbroken", reported, **how)
    with runs.session(data, run, reported, **how) as process:
        runs.wait_for(lambda: len(runs.parts(run)) > 1, process)
        runs.kill(process)
    assert runs.killed(process) and 0 < runs.reported_done(reported) <= runs.judgments_there(run) < 144 * 2
    assert runs.differences(runs.complete(data, run, reported, **how), unbroken) == []


@pytest.mark.long
def test_a_run_killed_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    assert kills.run(3, seed=1, folder=tmp_path, sources=8) == []


@pytest.mark.long
def test_a_write_killed_at_any_step_is_whole_or_was_not(tmp_path: Path) -> None:
    assert writes.run(4, seed=1, folder=tmp_path) == []


@pytest.mark.long
def test_a_part_that_a_disk_has_spoiled_is_found_and_judged_again(tmp_path: Path) -> None:
    assert spoilt.run(300, seed=1, folder=tmp_path) == []


@pytest.mark.long
def test_two_processes_on_one_run_and_a_clock_set_back_do_no_harm(tmp_path: Path) -> None:
    assert clashes.run(1, seed=1, folder=tmp_path) == []


@pytest.mark.long
def test_a_disk_that_fills_or_turns_read_only_is_named_and_the_run_goes_on(tmp_path: Path) -> None:
    if not disks.can_mount(tmp_path):
        pytest.skip("this user may not mount a small disk")
    assert disks.run(1, seed=1, folder=tmp_path) == []
