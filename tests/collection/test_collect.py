"""Collecting: every dialogue once, whatever happens on the way, and never a reply that nobody wrote."""

import json
from pathlib import Path
from typing import Any

import pytest

import judge.engines.connections as connections
from judge import (
    Collected,
    CollectOptions,
    EngineError,
    InputError,
    collect,
    read_dialogues,
)
from judge.collection.play import seed_of
from judge.collection.scenarios import Scene
from judge.data.dialogues import Record
from judge.types import Dialogue
from tests.helpers.commands import refused, typed
from tests.helpers.serving import HALF, serving
from tests.helpers.talkers import Talker, choice


def options(url: str, out: Path, **more: Any) -> CollectOptions:
    return CollectOptions(**{"url": url, "out": out, "patience": 5.0, "max_tokens": 50, **more})


def dialogues(result: Collected) -> dict[str, Dialogue]:
    """What was written, as score reads it, by character/scenario."""
    assert result.file
    records = list(read_dialogues([result.file]))
    assert all(isinstance(one, Record) for one in records), records
    return {f"{one.dialogue.character}/{one.dialogue.scenario}": one.dialogue for one in records}


NAMES = {f"{who}/{what}" for who in "甲乙" for what in ("1", "2", "third")}


def test_every_character_is_played_in_every_scenario(scenarios: Path, tmp_path: Path) -> None:
    with serving(Talker()) as url:
        result = collect([scenarios], options(url, tmp_path / "out"))
    found = dialogues(result)
    assert found.keys() == NAMES and {len(one.turns) for one in found.values()} == {2}
    assert found["甲/2"].source == "talker" and found["甲/2"].profile == "守灯人" and found["乙/2"].profile is None
    assert found["甲/2"].turns[0].user == "我升职了！" and found["甲/2"].is_answered
    assert (result.dialogues, result.wanted, result.replies, result.user_replies, result.tokens) == (6, 6, 12, 6, 54)
    assert (result.missing, result.retries, result.cut, result.compared) == ({}, 0, 0, ())
    manifest = json.loads((result.folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["settings"]["model"] == "talker" and manifest["settings"]["seed"] == 0


def test_a_round_holds_all_that_was_said_before_it(scenarios: Path, tmp_path: Path) -> None:
    talker = Talker()
    with serving(talker) as url:
        found = dialogues(collect([scenarios], options(url, tmp_path / "out", rounds=3, limit=1)))
    (dialogue,) = found.values()
    *_, user_asked, last = talker.asked
    said = [text for turn in dialogue.turns for text in (turn.user, turn.character)]
    assert [one["content"] for one in last["messages"][1:]] == said[:-1]
    assert [one["role"] for one in last["messages"]] == ["system", *("user", "assistant") * 2, "user"]
    # The simulated user reads a transcript, and is told nothing of the character's profile.
    assert [one["role"] for one in user_asked["messages"]] == ["system", "user"]
    assert all(text in user_asked["messages"][1]["content"] for text in said[:4] if text)
    assert "守灯人" not in json.dumps(user_asked, ensure_ascii=False)


def test_equal_seeds_ask_the_same_whatever_the_order(scenarios: Path, tmp_path: Path) -> None:
    def asked(name: str, **more: Any) -> set[str]:
        talker = Talker()
        with serving(talker) as url:
            collect([scenarios], options(url, tmp_path / name, **more))
        bodies = [json.dumps(body, sort_keys=True) for body in talker.asked]
        assert len(bodies) == len(set(bodies))
        return set(bodies)

    first = asked("a", concurrency=1)
    assert asked("b", concurrency=6) == first and len(first) == 18
    assert asked("c", limit=2) < first
    assert not asked("d", seed=1) & first


def test_the_same_command_asks_nothing_again(scenarios: Path, tmp_path: Path) -> None:
    talker = Talker()
    with serving(talker) as url:
        first = collect([scenarios], options(url, tmp_path / "out", limit=2))
        assert first.file
        text, before = first.file.read_bytes(), len(talker.asked)
        assert collect([scenarios], options(url, tmp_path / "out", limit=2)) == first
        assert (first.file.read_bytes(), len(talker.asked)) == (text, before)
        rest = collect([scenarios], options(url, tmp_path / "out"))
    assert dialogues(rest).keys() == NAMES
    assert len(talker.asked) == 18


def test_seeds_are_those_of_the_reply_and_not_of_the_order() -> None:
    one, other = Scene("甲", "1", "？"), Scene("甲", "2", "？")
    seeds = {
        seed_of(seed, scene, number, who, attempt)
        for seed in (0, 1)
        for scene in (one, other)
        for number in (1, 2)
        for who in ("character", "user")
        for attempt in (0, 1)
    }
    assert len(seeds) == 32 and all(0 <= seed < 2**31 for seed in seeds)
    assert seed_of(0, one, 1, "character") == seed_of(0, Scene("甲", "1", "another question"), 1, "character")


FAULTS = {
    "busy": (429, b"{}"),
    "failing": (500, b"oh"),
    "half a body": (HALF, b""),
    "not JSON": (200, b"<html>"),
    "no choices": (200, b'{"choices": []}'),
    "no message": (200, b'{"choices": [{"index": 0}]}'),
    "a hidden error": (200, b'{"error": {"message": "overloaded"}}'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_fails_now_and_then_loses_nothing(scenarios: Path, tmp_path: Path, fault: str) -> None:
    with serving(Talker()) as url:
        whole = dialogues(collect([scenarios], options(url, tmp_path / "whole")))

    def sometimes(path: str, number: int) -> tuple[int, bytes] | None:
        return FAULTS[fault] if path == "/v1/chat/completions" and number in (5, 9) else None

    with serving(Talker(), sometimes) as url:
        result = collect([scenarios], options(url, tmp_path / "out"))
    assert dialogues(result) == whole
    assert (result.retries, result.missing) == (2, {})


def test_a_server_that_stays_away_ends_it_and_what_was_said_is_kept(scenarios: Path, tmp_path: Path) -> None:
    away = {"it": True}
    fault = lambda path, number: (500, b"{}") if away["it"] and number > 8 else None  # noqa: E731
    talker = Talker()
    with serving(talker, fault) as url:
        with pytest.raises(EngineError, match=r"every reply so far is in .*run the same command again") as error:
            collect([scenarios], options(url, tmp_path / "out", patience=0.5, concurrency=1))
        assert error.value.can_go_on and len(talker.asked) > 2
        away["it"] = False
        assert dialogues(collect([scenarios], options(url, tmp_path / "out"))).keys() == NAMES
    assert len(talker.asked) == 18


def of_scenario(body: Any, text: str) -> bool:
    """Whether a request is for a reply in the scenario that has a text."""
    return any(text in message["content"] for message in body["messages"])


def test_an_empty_reply_is_asked_for_again_with_other_seeds_and_then_missing(scenarios: Path, tmp_path: Path) -> None:
    cured = {"it": False}
    script = lambda body: "  \n" if of_scenario(body, "我很累") and not cured["it"] else None  # noqa: E731
    talker = Talker(script)
    with serving(talker) as url:
        result = collect([scenarios], options(url, tmp_path / "out"))
        assert result.missing == {"empty_answer": 2}
        assert dialogues(result).keys() == NAMES - {"甲/third", "乙/third"}
        empty = [body for body in talker.asked if of_scenario(body, "我很累")]
        assert len(empty) == 6 and len({body["seed"] for body in empty}) == 6
        cured["it"], talker.asked = True, []
        result = collect([scenarios], options(url, tmp_path / "out"))
    assert result.missing == {} and dialogues(result).keys() == NAMES
    assert len(talker.asked) == 6 and all(of_scenario(body, "我很累") for body in talker.asked)


def test_a_reply_that_is_empty_once_is_there_at_the_second_try(scenarios: Path, tmp_path: Path) -> None:
    seen: list[Any] = []

    def first_empty(body: Any) -> str | None:
        seen.append(body)
        return "" if len(seen) == 3 else None

    with serving(Talker(first_empty)) as url:
        result = collect([scenarios], options(url, tmp_path / "out"))
    assert (result.missing, result.retries, result.dialogues) == ({}, 1, 6)


@pytest.mark.parametrize("models", [("a", "b"), None])
def test_a_server_whose_paths_have_a_version_of_their_own_is_found(
    scenarios: Path, tmp_path: Path, models: tuple[str, ...] | None
) -> None:
    talker = Talker(prefix="/api/paas/v4", models=models)
    with serving(talker) as url:
        result = collect([scenarios], options(f"{url}/api/paas/v4", tmp_path / "out", model="b", limit=2))
    assert (result.dialogues, result.source) == (2, "b") and len(talker.asked) == 6


def test_a_model_that_a_server_does_not_have_is_refused_by_what_it_has(scenarios: Path, tmp_path: Path) -> None:
    absent = (404, {"error": {"message": "no such model"}})
    with serving(Talker(lambda body: absent if body["model"] == "c" else None, models=("a", "b"))) as url:
        for model, said in (
            ("c", r"has no model c \(no such model\); it serves a, b"),
            ("auto", "serves a, b; name one"),
        ):
            with pytest.raises(InputError, match=said):
                collect([scenarios], options(url, tmp_path / "out", model=model))
    assert not (tmp_path / "out").exists()


def test_a_model_that_a_server_answers_for_and_does_not_list_is_noted(scenarios: Path, tmp_path: Path) -> None:
    with serving(Talker(models=("a", "b"))) as url:
        command = ("collect", "--url", url, "--from", scenarios, "--limit", 1, "--out", "out")
        said = typed(*command, "--model", "c", "--user-model", "d", cwd=tmp_path)
        listed = typed(*command, "--model", "a", "--out", "other", cwd=tmp_path)
    assert said.returncode == listed.returncode == 0
    assert f"{url} lists a, b and not c" in said.stderr and f"{url} lists a, b and not d" in said.stderr
    assert "lists" not in listed.stderr


MISTAKES = {
    "no address": ("nowhere", "--user-url nowhere: no address"),
    "no port": ("http://x:port", "--user-url http://x:port: no address"),
    "a key in it": ("http://me:hidden@127.0.0.1:1", "--user-url: must hold no name", "ESRP_USER_API_KEY"),
    "nobody there": ("http://127.0.0.1:1", "no server at http://127.0.0.1:1", "; check --user-url"),
}


@pytest.mark.parametrize("how", MISTAKES)
def test_a_wrong_address_of_the_simulated_user_is_said_by_its_own_option(
    scenarios: Path, tmp_path: Path, how: str
) -> None:
    wrong, *named = MISTAKES[how]
    with serving(Talker()) as url:
        command = ("collect", "--url", url, "--from", scenarios, "--out", "out")
        said = typed(*command, "--user-url", wrong, cwd=tmp_path)
    refused(said, *named, code=3 if how == "nobody there" else 2)
    assert "hidden" not in said.stderr


def test_what_the_simulated_users_server_refuses_is_said_by_its_own_options(scenarios: Path, tmp_path: Path) -> None:
    def answers(script: Any, *named: str, models: tuple[str, ...] = ("talker",)) -> None:
        with serving(Talker()) as url, serving(Talker(script, models=models)) as other:
            command = ("collect", "--url", url, "--from", scenarios, "--out", "out", "--user-url", other)
            refused(typed(*command, cwd=tmp_path), other, *named)

    answers(lambda body: (401, {}), "refuses the key", "ESRP_USER_API_KEY")
    answers(lambda body: (400, {}), "finds fault with what it is asked (HTTP 400")
    answers(lambda body: (200, []), "does not answer")
    answers(lambda body: None, "--user-model: ", "serves a, b; name one", models=("a", "b"))


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_a_server_that_answers_nothing_is_said_in_a_line(scenarios: Path, tmp_path: Path, status: int) -> None:
    with serving(Talker(lambda body: (status, {"error": {"message": "no\nway"}}))) as url:
        said = typed("collect", "--url", url, "--from", scenarios, "--out", "out", cwd=tmp_path)
    refused(said, f"HTTP {status}", code=2 if status == 400 else 3)


FILTERS = {
    "a refusal": (400, {"error": {"code": "content_filter", "message": "The response was filtered"}}),
    "the end of a reply": (200, choice("我", "content_filter")),
    "the end by another name": (200, choice("", "sensitive")),
}


@pytest.mark.parametrize("how", FILTERS)
def test_what_a_filter_withholds_is_missing_and_the_rest_goes_on(scenarios: Path, tmp_path: Path, how: str) -> None:
    talker = Talker(lambda body: FILTERS[how] if of_scenario(body, "我很累") else None)
    with serving(talker) as url:
        result = collect([scenarios], options(url, tmp_path / "out"))
    assert result.missing == {"content_filter": 2} and dialogues(result).keys() == NAMES - {"甲/third", "乙/third"}
    assert len([body for body in talker.asked if of_scenario(body, "我很累")]) == 2


def test_prompts_that_are_too_long_or_refused_are_missing_by_their_reason(scenarios: Path, tmp_path: Path) -> None:
    def script(body: Any) -> tuple[int, Any] | None:
        if of_scenario(body, "我很累"):
            return 400, {"error": {"message": "maximum context length is 3"}}
        return (400, {"error": {"message": "no"}}) if of_scenario(body, "我升职了") else None

    with serving(Talker(script)) as url:
        result = collect([scenarios], options(url, tmp_path / "out"))
    assert result.details == {"engine_failed": "HTTP 400: no", "too_long": "HTTP 400: maximum context length is 3"}
    assert result.missing == {"engine_failed": 2, "too_long": 2} and dialogues(result).keys() == {"甲/1", "乙/1"}


def test_a_failing_simulated_user_is_named(scenarios: Path, tmp_path: Path) -> None:
    talker = Talker(lambda body: "" if of_scenario(body, "到目前为止的对话") else None)
    with serving(talker) as url:
        result = collect([scenarios], options(url, tmp_path / "out", limit=1))
    assert (result.missing, result.file, result.replies) == ({"user: empty_answer": 1}, None, 0)


def test_a_cut_reply_is_kept_and_counted(scenarios: Path, tmp_path: Path) -> None:
    talker = Talker(lambda body: (200, choice("灯亮", "length")) if of_scenario(body, "我很累") else None)
    with serving(talker) as url:
        result = collect([scenarios], options(url, tmp_path / "out", rounds=1))
    assert (result.cut, result.dialogues) == (2, 6)
    assert dialogues(result)["甲/third"].turns[0].character == "灯亮"


THOUGHTS = {
    "<think>他累了</think>\n\n歇一会儿。": "歇一会儿。",
    "他累了\n</think>\n歇一会儿。": "歇一会儿。",
    "歇一会儿。": "歇一会儿。",
    "a < b <think": "a < b <think",
}


@pytest.mark.parametrize("written", THOUGHTS)
def test_thoughts_are_no_part_of_a_reply(scenarios: Path, tmp_path: Path, written: str) -> None:
    with serving(Talker(lambda body: written)) as url:
        found = dialogues(collect([scenarios], options(url, tmp_path / "out", limit=1)))
    assert {reply for one in found.values() for reply in one.replies} == {THOUGHTS[written]}


@pytest.mark.parametrize("answer", [choice("<think>他累", "length"), choice("", "length", reasoning_content="他累")])
def test_a_reply_that_is_all_thought_is_missing_by_that_name(scenarios: Path, tmp_path: Path, answer: Any) -> None:
    with serving(Talker(lambda body: (200, answer) if body["max_tokens"] == 50 else "好")) as url:
        result = collect([scenarios], options(url, tmp_path / "out", limit=1))
    assert result.missing == {"only_thoughts": 1}


def test_a_server_that_thinks_is_told_in_every_way_not_to(scenarios: Path, tmp_path: Path) -> None:
    def script(body: Any) -> tuple[int, Any]:
        silent = body.get("reasoning_effort") == "none"
        return 200, choice("好。") if silent else choice("好。", reasoning_content="嗯……")

    talker = Talker(script)
    with serving(talker) as url:
        collect([scenarios], options(url, tmp_path / "out", limit=1))
    assert talker.asked and all(body["reasoning_effort"] == "none" for body in talker.asked)


def test_fields_that_a_server_refuses_are_left_out(scenarios: Path, tmp_path: Path) -> None:
    def script(body: Any) -> tuple[int, Any] | None:
        for name in ("seed", "top_p", "temperature", "max_tokens", "chat_template_kwargs", "reasoning_effort", "think"):
            if name in body:
                more = "; use max_completion_tokens" if name == "max_tokens" else ""
                return 400, {"error": {"message": f"unsupported parameter {name}{more}"}}
        return None

    talker = Talker(script)
    with serving(talker) as url:
        result = collect([scenarios], options(url, tmp_path / "out", limit=1))
    assert result.missing == {} and talker.asked[-1].keys() == {"model", "messages", "max_completion_tokens"}


def test_a_refused_key_ends_it_at_once(scenarios: Path, tmp_path: Path) -> None:
    talker = Talker(lambda body: (401, {"error": {"message": "Incorrect key sk-very-secret"}}))
    with serving(talker) as url:
        command = ("collect", "--url", url, "--from", scenarios, "--out", "out")
        result = typed(*command, cwd=tmp_path, ESRP_API_KEY="sk-very-secret")
    refused(result, "refuses the key", "ESRP_API_KEY")
    assert "very-secret" not in result.stderr and talker.asked == []


def test_a_key_that_is_refused_on_the_way_ends_it_too(scenarios: Path, tmp_path: Path) -> None:
    fault = lambda path, number: (403, b"{}") if number > 8 else None  # noqa: E731
    with serving(Talker(), fault) as url, pytest.raises(InputError, match=r"refuses the key.*ESRP_API_KEY"):
        collect([scenarios], options(url, tmp_path / "out"))


def test_keys_that_servers_repeat_are_written_and_printed_nowhere(scenarios: Path, tmp_path: Path) -> None:
    keys = {"ESRP_API_KEY": "sk-planted-one", "ESRP_USER_API_KEY": "sk-planted-two"}
    echo = (400, {"error": {"message": f"no: {' '.join(keys.values())}"}})
    with serving(Talker(lambda body: echo if of_scenario(body, "我很累") else None)) as url:
        command = ("collect", "--url", url, "--from", scenarios, "--out", "out")
        said = typed(*command, cwd=tmp_path, **keys)
    assert said.returncode == 1 and "engine_failed: HTTP 400: no: … …" in said.stdout
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert "planted" not in said.stdout + said.stderr and b"planted" not in written


def test_a_key_goes_to_its_own_server_alone(scenarios: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESRP_API_KEY", "key-of-the-model")
    monkeypatch.setenv("ESRP_USER_API_KEY", "key-of-the-user")
    sent: dict[str, set[str | None]] = {}
    real = connections.headers

    def watched(variable: str) -> dict[str, str]:
        sent.setdefault(variable, set()).add(real(variable).get("Authorization"))
        return real(variable)

    monkeypatch.setattr(connections, "headers", watched)
    model, user = Talker(), Talker()
    with serving(model) as url, serving(user) as user_url:
        collect([scenarios], options(url, tmp_path / "out", user_url=user_url, limit=2))
    assert sent == {"ESRP_API_KEY": {"Bearer key-of-the-model"}, "ESRP_USER_API_KEY": {"Bearer key-of-the-user"}}
    assert (len(model.asked), len(user.asked)) == (4, 2)
    assert all(of_scenario(body, "到目前为止的对话") for body in user.asked)


def test_recorded_questions_take_the_place_of_the_simulated_user(scenarios: Path, tmp_path: Path) -> None:

    talker = Talker()
    with serving(talker) as url:
        result = collect([scenarios], options(url, tmp_path / "out", rounds=3, follow_up="recorded"))
    found = dialogues(result)
    assert {name: len(one.turns) for name, one in found.items() if name.startswith("甲")} == {
        "甲/1": 2, "甲/2": 3, "甲/third": 1,
    }  # fmt: skip
    assert [turn.user for turn in found["乙/2"].turns] == ["我升职了！", "谢谢你。", "再见。"]
    assert (result.user_replies, len(talker.asked)) == (0, 12)
