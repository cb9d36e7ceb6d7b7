"""Whose key goes where, when a judge on a server of its own scores what was collected."""

import os

import pytest

from judge import InputError
from judge.cli.collect import judge_asked_by_its_own_key
from judge.engines.connections import headers

MODEL, JUDGE = "http://127.0.0.1:1/v1", "http://127.0.0.1:2"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESRP_API_KEY", "key-of-the-model")
    monkeypatch.setenv("ESRP_JUDGE_API_KEY", "key-of-the-judge")


def test_the_key_of_the_model_goes_to_no_other_server() -> None:
    with judge_asked_by_its_own_key(MODEL, JUDGE):
        assert headers() == {"Authorization": "Bearer key-of-the-judge"}
    assert headers() == {"Authorization": "Bearer key-of-the-model"}


def test_a_judge_without_a_key_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESRP_JUDGE_API_KEY")
    with judge_asked_by_its_own_key(MODEL, JUDGE):
        assert headers() == {}
    monkeypatch.delenv("ESRP_API_KEY")
    with judge_asked_by_its_own_key(MODEL, JUDGE):
        pass
    assert "ESRP_API_KEY" not in os.environ


@pytest.mark.parametrize("addresses", [(MODEL, "http://127.0.0.1:1"), (None, JUDGE), (MODEL, None)])
def test_one_server_has_one_key(addresses: tuple[str | None, str | None]) -> None:
    with judge_asked_by_its_own_key(*addresses):
        assert headers() == {"Authorization": "Bearer key-of-the-model"}


def test_mistakes_name_the_option_and_the_variable_of_the_judge() -> None:
    with (
        pytest.raises(InputError, match="check --judge-url; set ESRP_JUDGE_API_KEY"),
        judge_asked_by_its_own_key(MODEL, JUDGE),
    ):
        raise InputError("check --url; set ESRP_API_KEY")
    assert headers() == {"Authorization": "Bearer key-of-the-model"}
