"""Each degradation does what it says, more of it the stronger it is, and leaves the rest of a dialogue alone."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from judge.data.dataset import Corpus
from judge.data.dialogues import example_files
from judge.robustness.degradations import (
    DEGRADATIONS,
    KINDS,
    STRENGTHS,
    Edit,
    Others,
    degrade,
    edited,
    edits_of,
    language_of,
    load_wording,
    sentences,
)
from judge.robustness.probes import others_of
from judge.types import Dialogue, Turn
from tests.helpers.chatanime import METRICS

NOBODY = Others((), ())
ZH, EN = load_wording("zh"), load_wording("en")
LUFFY = "《海贼王》的蒙奇·D·路飞"


def dialogue(*replies: str, character: str = LUFFY, scenario: str = "1") -> Dialogue:
    return Dialogue("own", character, scenario, tuple(Turn(f"问题{n}？", text) for n, text in enumerate(replies)))


LONG = dialogue(
    "听起来你今天很累。我也有过这样的日子。先坐下来歇一会儿吧。你想说说发生了什么吗？",
    "原来是这样。换了谁都会难过的。不如先把最小的一件事做完。我在这里陪你。",
)
ENGLISH = dialogue(
    "That sounds like a hard day. I had days like that too. Sit down for a while. What happened?",
    "I see now. Anybody would be sad. Finish one small thing first. I am here with you.",
)


@pytest.fixture(scope="module")
def corpus() -> Iterator[Corpus]:
    with closing(Corpus(example_files())) as found:
        yield found


@pytest.fixture(scope="module")
def cases(corpus: Corpus) -> list[tuple[Dialogue, Others]]:
    return [(one, others_of(one, corpus)) for one in list(corpus)[::4]]


def replies(one: Dialogue) -> list[str]:
    return [turn.character for turn in one.turns]


def strong(one: Dialogue, name: str, others: Others = NOBODY) -> list[str]:
    return replies(degrade(one, name, others)[-1])


def test_every_metric_is_aimed_at_and_every_degradation_applies_to_some_of_the_example(
    cases: list[tuple[Dialogue, Others]],
) -> None:
    assert {degradation.metric for degradation in DEGRADATIONS.values()} == set(METRICS)
    applied = {name for name in DEGRADATIONS for one, others in cases if degrade(one, name, others)}
    assert applied == set(DEGRADATIONS) - {"borrowed_names"}  # no work of the example is known by name


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_stronger_one_makes_the_edits_of_the_weaker_and_more(name: str, cases: list[tuple[Dialogue, Others]]) -> None:
    for one, others in cases:
        edits, forms = edits_of(one, name, others), degrade(one, name, others)
        if forms:
            states = {edited(one, edits[:n]).content_digest: n for n in range(len(edits), -1, -1)}
            counts = [states[form.content_digest] for form in (one, *forms)]
            assert counts == sorted(set(counts)) and len(forms) == len(STRENGTHS)
        assert not any(overlap(a, b) for a, b in pairwise(sorted(edits, key=lambda e: (e.round, e.start, e.end))))


def overlap(a: Edit, b: Edit) -> bool:
    return a.round == b.round and b.start < a.end


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_all_but_the_replies_stays_and_the_seed_decides(name: str, cases: list[tuple[Dialogue, Others]]) -> None:
    other_seed_differs = False
    for one, others in cases:
        forms = degrade(one, name, others)
        assert forms == degrade(one, name, others)
        other_seed_differs |= forms != degrade(one, name, others, seed=1)
        for form in forms:
            assert (form.id, form.profile) == (one.id, one.profile)
            assert [turn.user for turn in form.turns] == [turn.user for turn in one.turns]
            assert all(text.strip() for text in replies(form))
    assert other_seed_differs or name == "borrowed_names"


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_side_that_said_nothing_goes_on_saying_nothing(name: str, cases: list[tuple[Dialogue, Others]]) -> None:
    for one, others in cases:
        first, *_ = one.turns
        odd = replace(one, turns=(Turn(None, first.character), *one.turns, Turn("嗯", None)))
        donors = Others(
            *(
                tuple(replace(d, turns=(Turn("嗯", None), *d.turns)) for d in some)
                for some in (others.of_role, others.of_scene)
            )
        )
        for form in degrade(odd, name, donors):
            assert [turn.user for turn in form.turns] == [turn.user for turn in odd.turns]
            assert [turn.character is None for turn in form.turns] == [False] * (len(odd.turns) - 1) + [True]


def is_part(part: str, whole: str) -> bool:
    """Whether all characters of a part stand in the whole, in their order."""
    rest = iter(whole)
    return all(letter in rest for letter in part)


def test_dropped_characters_are_gone_and_the_others_stand_as_they_did() -> None:
    mild, medium, most = (replies(form) for form in degrade(LONG, "dropped", NOBODY))
    for own, *less in zip(replies(LONG), mild, medium, most, strict=True):
        assert all(is_part(weaker, stronger) for stronger, weaker in pairwise([own, *less]))
    letters = sum(letter.isalnum() for text in replies(LONG) for letter in text)
    gone = sum(map(len, replies(LONG))) - sum(map(len, most))
    assert gone == -(-letters // 4)  # a quarter, rounded up


def test_repeated_characters_stand_twice() -> None:
    letters = sum(letter.isalnum() for text in replies(LONG) for letter in text)
    most = strong(LONG, "repeated")
    assert sum(map(len, most)) - sum(map(len, replies(LONG))) == -(-letters * 4 // 10)
    assert all(is_part(own, text) for own, text in zip(replies(LONG), most, strict=True))
    assert all(set(own) == set(text) for own, text in zip(replies(LONG), most, strict=True))


@pytest.mark.parametrize("one", [LONG, ENGLISH])
def test_shuffling_keeps_what_there_is_and_its_length(one: Dialogue) -> None:
    for own, text in zip(replies(one), strong(one, "shuffled"), strict=True):
        assert Counter(own) == Counter(text) and own != text
    words = re.findall(r"\w+", replies(ENGLISH)[0])
    assert Counter(re.findall(r"\w+", strong(ENGLISH, "shuffled")[0])) == Counter(words)


@pytest.mark.parametrize(("one", "own", "other"), [(LONG, "zh", "en"), (ENGLISH, "en", "zh")])
def test_replies_go_on_in_the_other_language(one: Dialogue, own: str, other: str) -> None:
    for text in strong(one, "foreign"):
        assert language_of(text[:8]) == own and language_of(text[-20:]) == other
    mild = replies(degrade(one, "foreign", NOBODY)[0])
    assert all(len(sentences(text)) == 4 for text in mild)  # of four sentences one is of the other language
    assert all(language_of(text[slice(*span)]) == own for text in mild for span in sentences(text)[:3])


def test_without_the_debris_of_markup_the_reply_is_what_it_was() -> None:
    debris = re.compile("|".join(map(re.escape, sorted(ZH.markup, key=len, reverse=True))))
    for form in degrade(LONG, "markup", NOBODY):
        assert [debris.sub("", text) for text in replies(form)] == replies(LONG)
        assert any(debris.search(text) for text in replies(form))


def test_strong_swaps_leave_another_dialogue_s_replies() -> None:
    role, star = (
        dialogue("别处一。别处二。", "别处三。别处四！", scenario="2"),
        dialogue("旁人一。", "旁人二。", character="旁人"),
    )
    others = Others((role,), (star,))
    assert strong(LONG, "other_scenario", others) == replies(role)
    assert strong(LONG, "other_voice", others) == replies(star)
    assert strong(LONG, "other_character", others) == [replies(LONG)[0], "旁人二。"]
    mild = replies(degrade(LONG, "other_scenario", others)[0])
    ends = [sentences(replies(LONG)[0])[2][0], sentences(replies(LONG)[1])[3][0]]  # of eight sentences, three
    assert mild == [replies(LONG)[0][: ends[0]] + "别处二。", replies(LONG)[1][: ends[1]] + "别处四！"]


def test_advice_is_replaced_by_advice_of_other_scenarios() -> None:
    one = dialogue("我懂你。不如早点睡。你可以少喝咖啡。", "记得吃早饭。没事的。")
    role = dialogue("天气真好。建议你带伞。", "试试换条路。最好问问邻居。", scenario="2")
    forms = degrade(one, "other_advice", Others((role,), ()))
    given = {"建议你带伞。", "试试换条路。", "最好问问邻居。"}
    for count, form in enumerate(forms, start=1):
        parts = {text[slice(*span)] for text in replies(form) for span in sentences(text)}
        assert len(parts & given) == count and {"我懂你。", "没事的。"} <= parts
        assert "天气真好。" not in parts
    assert degrade(one, "other_advice", NOBODY) == ()


@pytest.mark.parametrize(
    ("name", "lines"),
    [("contradiction", "contradiction"), ("conduct", "conduct"), ("cold", "cold"), ("unasked_advice", "advice")],
)
@pytest.mark.parametrize("one", [LONG, ENGLISH])
def test_lines_of_ours_take_the_place_of_sentences(name: str, lines: str, one: Dialogue) -> None:
    wording = ZH if one is LONG else EN
    places = 4 if name == "contradiction" else 8
    for share, form in zip((0.25, 0.5, 0.75), degrade(one, name, NOBODY), strict=True):
        found = "\n".join(replies(form))
        there = [line for line in getattr(wording, lines) if line in found]
        kept = [text[slice(*span)] for text in replies(one) for span in sentences(text)]
        assert len(there) == share * places
        assert sum(sentence in found for sentence in kept) == 8 - share * places
        assert name != "contradiction" or replies(form)[0] == replies(one)[0]


def test_a_line_is_about_as_long_as_what_it_replaces() -> None:
    before, after = (sum(map(len, texts)) for texts in (replies(LONG), strong(LONG, "cold")))
    assert abs(after - before) < 0.25 * before


def test_names_become_those_of_one_other_work_of_the_same_kind() -> None:
    one = dialogue("香克斯教过我。伟大航路很大。", "索隆也在，霸气不是一天练成的。")
    (text,) = ["".join(strong(one, "borrowed_names"))]
    assert not any(name in text for name in ("香克斯", "伟大航路", "索隆", "霸气"))
    pattern = re.fullmatch(r"(.+)教过我。(.+)很大。(.+)也在，(.+)不是一天练成的。", text)
    assert pattern
    person, place, other_person, ability = pattern.groups()
    (work,) = [work for work in ZH.works if person in work.people and place in work.places]
    assert other_person in work.people and ability in work.abilities
    assert LUFFY not in work.titles and person != other_person


def test_a_work_that_is_not_known_has_no_names_to_swap_but_stories_to_borrow() -> None:
    one = dialogue(*replies(LONG), character="《无名之作》的某人")
    assert degrade(one, "borrowed_names", NOBODY) == ()
    terms = {term for work in ZH.works for kind in KINDS for term in getattr(work, kind)}
    for form in degrade(one, "borrowed_story", NOBODY):
        assert any(term in text for term in terms for text in replies(form))


def test_plain_prose_says_the_same_without_the_manner() -> None:
    one = dialogue("哎呀，你太累了呢！先歇着吧～（拍拍肩）", "我明白了……你觉得呢？真是的，早点睡啊！")
    assert strong(one, "plain_prose") == ["你太累了。先歇着", "我明白了，你觉得呢？早点睡。"]


def test_of_a_story_clauses_are_cut_and_what_is_not_story_stays() -> None:
    one = dialogue("别怕，我小时候也怕黑，夜里不敢出门，总要点灯。", "后来就好了。你也会好的。")
    forms = [replies(form) for form in degrade(one, "story_cut", NOBODY)]
    assert [first for first, _ in forms] == ["别怕，夜里不敢出门，总要点灯。", "别怕，总要点灯。", "别怕，"]
    assert all(second == "后来就好了。你也会好的。" for _, second in forms)
    assert degrade(dialogue("今天天气好。", "明天也好。"), "story_cut", NOBODY) == ()


def test_what_does_not_apply_gives_nothing() -> None:
    single = dialogue(replies(LONG)[0])
    assert degrade(single, "contradiction", NOBODY) == degrade(single, "other_character", NOBODY) == ()
    assert degrade(LONG, "other_scenario", NOBODY) == ()
    assert degrade(dialogue("嗯。", "好。"), "cold", NOBODY) == ()  # too short for three strengths
    told = "我小时候也怕黑，夜里不敢出门，总要点灯。"
    assert degrade(dialogue(told, told), "story_cut", NOBODY) == ()  # nothing would be left


def test_others_are_of_the_same_source(corpus: Corpus, cases: list[tuple[Dialogue, Others]]) -> None:
    for one, others in cases:
        assert others.of_role and others.of_scene
        assert {d.source for d in (*others.of_role, *others.of_scene)} == {one.source}
        assert all(d.character == one.character and d.scenario != one.scenario for d in others.of_role)
        assert all(d.character != one.character and d.scenario == one.scenario for d in others.of_scene)


def test_where_no_other_character_has_the_scenario_another_one_is_taken(tmp_path: Path) -> None:
    rows = [("甲", "1"), ("乙", "2"), ("乙", "3")]
    lines = ["source,character,scenario,question_r1,answer_r1", *(f"s,{who},{where},问,答" for who, where in rows)]
    path = tmp_path / "some.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    with closing(Corpus([path])) as found:
        first = next(iter(found))
        one = next(one for one in found if one.character == "甲")
        assert {d.scenario for d in others_of(one, found).of_scene} == {"2", "3"}
        assert first.source == "s"


@pytest.mark.long
def test_all_apply_to_chatanime(chatanime: dict[str, dict[str, list[Dialogue]]], shared_data: Path) -> None:
    with closing(Corpus([shared_data / "chatanime"], limit=200)) as some:
        applied = Counter(
            name
            for one in list(some)
            for name in DEGRADATIONS
            if degrade(
                one,
                name,
                Others(tuple(chatanime[one.source][one.character][40:45]), tuple(chatanime[one.source][LUFFY][:5])),
            )
        )
    assert set(applied) == set(DEGRADATIONS)
    assert all(applied[name] > 190 for name in ("dropped", "foreign", "cold", "other_scenario"))


def test_a_reply_without_a_sentence_is_left_as_it_is() -> None:
    donors = Others((), (LONG,))
    silent = dialogue("……", "我在这里。你慢慢说。")
    assert [edit.round for edit in edits_of(silent, "other_voice", donors)] == [1, 1]
