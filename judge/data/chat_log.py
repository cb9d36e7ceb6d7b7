"""Chat logs: from messages with a speaker each to the rounds of a dialogue.

A dialogue is judged in rounds of two sides, the user and the character. Several messages in a row by one side are
joined by a line break; nothing of their text is lost. What a system prompt says is the character's profile.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from judge.data.fields import Fields, Wrong, folded, shortened, text_of
from judge.types import Turn

Side = Literal["user", "judged", "profile"]


SPEAKERS = ("role", "from", "speaker", "author", "name")
"""The fields of a message that may say who speaks, the surest first."""


TEXTS = ("content", "value", "text", "message", "utterance")
"""The fields of a message that may say what is said."""


USERS = frozenset(
    [
        "user",
        "human",
        "prompter",
        "seeker",
        "help-seeker",
        "client",
        "patient",
        "usr",
        "player",
        "customer",
        "用户",
        "来访者",
        "求助者",
        "玩家",
    ]
)


JUDGED = frozenset(
    [
        "assistant",
        "gpt",
        "bot",
        "model",
        "character",
        "char",
        "chatbot",
        "supporter",
        "helper",
        "therapist",
        "counselor",
        "counsellor",
        "ai",
        "agent",
        "chatgpt",
        "助手",
        "角色",
        "支持者",
        "咨询师",
        "机器人",
        "模型",
    ]
)


PROFILE = frozenset(["system", "developer", "系统"])


SYS = "sys"
"""ESConv's word for the supporter; where another speaker is the judged one, that of a system prompt."""


UNSPOKEN = frozenset({"tool", "function", "tool_call", "tool_response", "observation", "ipython"})
"""Speakers that are programs, and so never taken for the user."""


@dataclass(frozen=True, slots=True)
class ChatLog:
    """A chat log as it was understood."""

    messages: tuple[tuple[bool, str], ...]
    """What the two sides say, in order: whether it is the user, and the text."""
    profile: str | None
    roles: Mapping[str, str]
    """What each speaker was taken for: ``user``, ``judged`` or ``profile``."""


def is_chat_log(given: Any) -> bool:
    """Whether a value is a list whose first object says who speaks and what is said."""
    if not isinstance(given, list) or not given or not isinstance(given[0], Mapping):
        return False
    names = {folded(str(name)) for name in given[0]}
    return any(name in names for name in SPEAKERS) and any(name in names for name in TEXTS)


def read_chat_log(
    messages: list[Any],
    where: str,
    *,
    mapped: Mapping[str, str],
    judged_role: str | None = None,
    character: str | None = None,
) -> ChatLog:
    """Who says what in a list of messages.

    Args:
        messages: objects with a speaker and a text.
        where: the name of the field that holds them.
        mapped: what ``--map`` says of speakers: ``user`` or ``judged``.
        judged_role: a speaker who is judged, beside those that are known.
        character: the record's character, whose name is a judged speaker too.

    Raises:
        Wrong: a message or its speaker cannot be understood.
    """
    spoken = [_message(message, f"{where}[{number}]") for number, message in enumerate(messages, start=1)]
    sides = _sides([speaker for speaker, _ in spoken], where, mapped, {judged_role, character} - {None})
    profile = "\n".join(text for speaker, text in spoken if sides[speaker] == "profile")
    said = tuple((sides[speaker] == "user", text) for speaker, text in spoken if sides[speaker] != "profile")
    return ChatLog(said, profile if "profile" in sides.values() else None, sides)


def turns_of(messages: Iterable[tuple[bool, str]]) -> tuple[Turn, ...]:
    """Rounds of messages, each given as (whether the user says it, text): a round begins where the user begins.

    A message is joined by a line break to one before by the same speaker.
    """
    turns: list[Turn] = []
    last: bool | None = None
    for by_user, text in messages:
        if by_user == last:
            turn = turns.pop()
            parts = (f"{turn.user}\n{text}", None) if by_user else (turn.user, f"{turn.character}\n{text}")
            turns.append(Turn(*parts))
        elif by_user:
            turns.append(Turn(text, None))
        else:
            turns.append(Turn(turns.pop().user if turns else None, text))
        last = by_user
    return tuple(turns)


def _message(message: Any, where: str) -> tuple[str, str]:
    """Who speaks in a message, and what is said."""
    if not isinstance(message, Mapping):
        raise Wrong(f"field {where} is {type(message).__name__}, not an object; write {{role, content}}")
    fields = {folded(str(name)): value for name, value in message.items()}
    if calls := next((name for name in ("tool_calls", "function_call") if fields.get(name)), None):
        raise Wrong(f"field {where} has {calls}, which is not said to anyone; take the call out of the dialogue")
    speaker = next((name for name in SPEAKERS if fields.get(name) is not None), None)
    said = [name for name in TEXTS if fields.get(name) is not None]
    for names, found in ((SPEAKERS, speaker), (TEXTS, said)):
        if not found:
            raise Wrong(f"field {where} has none of {', '.join(names)} (it has {shortened(list(message))}); add one")
    if len({json.dumps(fields[name], default=str) for name in said}) > 1:
        raise Wrong(f"field {where} has both {said[0]} and {said[1]}; keep the one that was said")
    return text_of(fields[str(speaker)], f"{where}.{speaker}").strip(), _said(fields, said[0], where)


def _said(fields: Fields, name: str, where: str) -> str:
    """The text of a message, which may be given in parts (``[{type: text, text}]``)."""
    content = fields[name]
    if not isinstance(content, list):
        return text_of(content, f"{where}.{name}")
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
        if not isinstance(part, str | Mapping) or (isinstance(part, Mapping) and "text" not in part):
            raise Wrong(f"field {where}.{name} holds a part of type {kind}; only text is judged, take the part out")
        texts.append(text_of(part if isinstance(part, str) else part["text"], f"{where}.{name}"))
    return "\n".join(texts)


def _sides(speakers: list[str], where: str, mapped: Mapping[str, str], judged_too: set[str | None]) -> dict[str, Side]:
    """What each speaker of a dialogue is; ``Wrong`` where that is not known of one."""
    names = list(dict.fromkeys(speakers))
    own = {folded(name) for name in judged_too if name}
    sides: dict[str, Side] = {}
    for speaker in names:
        name = folded(speaker)
        if name in mapped:
            sides[speaker] = "user" if mapped[name] == "user" else "judged"
        elif name in own or name in JUDGED:
            sides[speaker] = "judged"
        elif name in PROFILE:
            sides[speaker] = "profile"
        elif name in USERS:
            sides[speaker] = "user"
    for speaker in (one for one in names if folded(one) == SYS and one not in sides):
        sides[speaker] = "profile" if "judged" in sides.values() else "judged"
    judged = [speaker for speaker, side in sides.items() if side == "judged"]
    # One who is judged by name or by the map talks with somebody: where there is one other, that is the user.
    others = [speaker for speaker in names if speaker not in sides]
    named = any(folded(speaker) in own or folded(speaker) in mapped for speaker in judged)
    if len(others) == 1 and named and "user" not in sides.values() and folded(others[0]) not in UNSPOKEN:
        sides[others[0]] = "user"
        others = []
    if programs := [speaker for speaker in others if folded(speaker) in UNSPOKEN]:
        raise Wrong(
            f"field {where} has a speaker {programs[0]!r}, which is a program and neither user nor judged; take its "
            "messages out, or the dialogue"
        )
    if others:
        ways = f'--map "user={others[0]}" or "judged={others[0]}"'
        raise Wrong(f"field {where} has a speaker {others[0]!r} who is not known; say who that is: {ways}")
    if len({folded(speaker) for speaker in judged}) > 1:
        one, other = judged[:2]
        ways = f'--map "judged={one},user={other}" or the other way round'
        raise Wrong(f"field {where} has two speakers who may be judged, {one!r} and {other!r}; say which: {ways}")
    return sides
