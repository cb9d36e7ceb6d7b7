"""A few of each crash trial of ``make torture``: what was reported as done is there, and the end is always the same."""

from pathlib import Path

import pytest

from tests.torture import clashes, disks, kills, spoilt, writes


def test_a_run_killed_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    assert kills.run(3, seed=1, folder=tmp_path, sources=8) == []


def test_a_write_killed_at_any_step_is_whole_or_was_not(tmp_path: Path) -> None:
    assert writes.run(4, seed=1, folder=tmp_path) == []


def test_a_part_that_a_disk_has_spoiled_is_found_and_judged_again(tmp_path: Path) -> None:
    assert spoilt.run(300, seed=1, folder=tmp_path) == []


def test_two_processes_on_one_run_and_a_clock_set_back_do_no_harm(tmp_path: Path) -> None:
    assert clashes.run(1, seed=1, folder=tmp_path) == []


def test_a_disk_that_fills_or_turns_read_only_is_named_and_the_run_goes_on(tmp_path: Path) -> None:
    if not disks.can_mount(tmp_path):
        pytest.skip("this user may not mount a small disk")
    assert disks.run(1, seed=1, folder=tmp_path) == []
