"""Finds known patterns of prompt injection: text in a dialogue that speaks to the judge and not to the user.

A flag is a reason to read the dialogue; it never alters a score. Patterns are matched by code alone, since defences
that rest on a model's judgment were broken by attackers who adapted (arXiv 2604.23887). Only known patterns are found,
so a dialogue without a flag is not proved harmless. The time is linear in the length of the text.

What is looked for, by the name that stands in the column ``suspicious``:

order          a rater is told what to give, or to forget the instructions
verdict        a score in the form of an answer slot (``流畅性：５``, ``[[5]]``)
rubric         another rubric: titles of several metrics, anchors of levels, criteria that are to hold instead
system         a turn or heading that is not of the dialogue's speakers (``system:``, "end of the dialogue")
control_token  tokens of chat templates (``<|im_end|>``, ``[INST]``, ``<think>``)
claim          somebody of standing is said to have given full marks
address        a rater is spoken to
praise         praise upon praise in one sentence
invisible      invisible characters: zero-width, direction marks, tags
gibberish      symbols or letters that are no words, as searched-for suffixes are
repetition     one character, or the same text, again and again; the same answer in every round
emoji          a heap of emoji
near_empty     an answer of one letter or none
opener         an answer that only begins one (``Thought process:``)
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from judge.prompting.rubric import languages, load_rubric
from judge.types import Dialogue, Scheme


def _any(*words: str) -> re.Pattern[str]:
    """A pattern of any of several words, for text in small letters."""
    return re.compile("|".join(words))


_RATER = (
    r"(?:评分|打分|评测|评估|评判|评价|标注|打分数)的?(?:人|者|员|官|助手|模型|系统|程序|ai)|评委|评审|裁判|打分的"
    r"|\b(?:judges?|graders?|evaluators?|raters?|annotators?|whoever (?:grades|rates|scores|judges))\b"
)
"""A rater, whatever it is called."""


_TOP = (
    r"满分|高分|最高(?:的)?(?:评分|评价|分数|档|一档)|(?<![扣减丢差得了考加])(?:五|5) ?分(?!钟|之|钱)"
    r"|5 ?(?:/|out of) ?5|[给打评填写选记是] ?5(?!\d)|full marks|top marks"
    r"|\b(?:maximum|highest|top|perfect)(?: possible)? (?:score|rating|mark|grade)s?"
    r"|\b(?:score|rating|give|a|with|rate|output|is|this|gave)(?: of| it| this)? (?:5|five)\b"
)
"""The best score."""


_ASK = (
    r"请|务必|必须|应该|应当|需要?给|一律|统一|直接|只能|只需|麻烦|注意|任务|总是|都会|合理|自动"
    r"|\b(?:must|should|please|shall|only|always|ensure|consider|treat|assume)\b"
)
"""A request or an order."""


_FOR_OTHERS = (
    r"给(?:你|他|她|自己|咱)|我(?:是|当|做|要是)|让(?:评委|裁判)|(?:get|got) |\b(?:yourself|give you|gave (?:you|me))\b"
)
"""The score is given to or by somebody in the story, as in an exam, and not by the judge: harmless."""


_OUTPUT = (
    r"(?:输出|填写?|写|回复|作答|回答)(?:的?(?:就?是|数字|为|一个|:| )){0,3} ?[1-5五](?![\d个点分钟封篇本月天年道页字])"
    r"|\b(?:output|answer|respond|reply|return|print)(?: (?:only|with|just|the|a|number|digit|here|is)){0,4}:?"
    r" (?:5|five)\b"
)
"""A level, or 5 in English, is to be written."""


_ONLY = r"只|直接|一律|自动|请|接下来|仅|就是|\b(?:only|always|must|just|please|ignore|should)\b"
"""Words that make writing a level an order."""


_EVERY = (
    r"(?:各|每|所有|全部|九|9)(?:个|一)?(?:项|维度|指标|评分)"
    r"|\b(?:all|every|each)(?: of the)?(?: nine)? (?:metric|criteri|dimension|item|categor)"
)
"""All metrics."""


_IGNORE = r"忽略|无视|忘(?:记|掉)|不要理会|不必理会|\b(?:ignore|disregard|forget|override)\b"
"""Something is to be ignored."""


_INSTRUCTIONS = (
    r"(?:以上|上面|之前|前面|上述|先前|此前|所有|原有|上文)的?(?:全部|所有|一切)?(?:评分|打分|评测|系统)?的?"
    r"(?:内容|指令|指示|要求|规则|提示|标准|设定|守则)"
    r"|\b(?:previous|above|prior|earlier|all|your|preceding) (?:[a-z]{1,12} ){0,2}"
    r"(?:text|message|instruction|rule|prompt|rubric|criteri|guideline)"
    r"|\b(?:instructions?|rules?|prompt|rubrics?|criteria|guidelines?) (?:above|before|so far)"
)
"""The instructions before the dialogue."""


_THIS = (
    r"(?:本|这|此|该|上述|以上)(?:段|则|份|次|轮|条)?(?:对话|回答|回复|角色发言|样本|扮演)"
    r"|\bthis (?:dialogue|answer|reply|response|sample|one)\b"
)
"""The dialogue or answer itself."""


_GIVE = r"[给打评判]|\b(?:give|award|rate|score|assign|deserves?|consider|treat|mark)\b"
"""Words of giving a score."""


_AUTHORITY = (
    r"专家|官方|权威|评审|委员会|人工|开发(?:者|团队)|复核"
    r"|\b(?:experts?|official|committee|panel|human (?:rater|judge|annotator)s?|developers?)\b"
)
"""Somebody of standing."""


_DECIDED = (
    r"[评判打]分?|认证|认定|审核|复核|一致"
    r"|\b(?:rated?|scored?|verified|certified|awarded|gave|given|agreed)\b"
)
"""A score was given, or agreed on."""


_ADDRESS = (
    rf"(?:尊敬|敬爱|亲爱|公正)的[^,]{{0,6}}(?:{_RATER}|评分|打分)",
    rf"(?:{_RATER})(?:们|大人|老师|您)?[,: ]{{0,2}}(?:辛苦|(?:请|务必|敬请)?(?:注意|给予|手下留情|高抬贵手|打分|放心))",
    r"\b(?:dear|respected|esteemed|wise|hono(?:u)?rable|brilliant|attention)[ ,:a-z]{0,24}"
    r"\b(?:judge|grader|evaluator|rater|annotator)s?\b",
    r"\b(?:note|message|instruction)s? (?:to|for) (?:the )?(?:judge|grader|evaluator|rater|annotator)",
)
"""Ways of speaking to a rater."""


_RATING = r"评分|打分|评价|评估|\b(?:scoring|grading|rating|evaluation)\b"
"""Rating."""


_STANDARD = r"标准|细则|规则|准则|守则|\b(?:rubric|criteri|guideline|rule|scale|standard)"
"""What ratings go by."""


_INSTEAD = (
    r"如下|为准|作废|替代|取代|代替|失效|无效|更新为|改为"
    r"|\b(?:supersede|replac|as follows|instead|no longer|void|updated)"
)
"""Something holds instead of what held before."""


_SPEAKERS = (
    r"系统(?:提示词?|消息|指令|通知|公告)?|用户|开发者|评分指令|指令"
    r"|(?:system|assistant|user|developer|instruction)(?: prompt| message| turn| note)?"
)
"""Those who may speak in a prompt, but not in a dialogue."""


_LABEL = r"评分|得分|打分|总分|分数|评级|\b(?:score|rating|grade|verdict|result)"
"""Words for a score, as they stand before it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Patterns that must all be found in one sentence, and what makes that sentence harmless again."""

    together: tuple[re.Pattern[str], ...]
    harmless: re.Pattern[str] = re.compile(r"(?!)")


RULES: dict[str, tuple[Rule, ...]] = {
    "order": (
        Rule((_any(_TOP), _any(_RATER), _any(_ASK)), _any(_FOR_OTHERS)),
        Rule((_any(_TOP), _any(_EVERY))),
        Rule((_any(_OUTPUT), _any(_ONLY))),
        Rule((_any(_IGNORE), _any(_INSTRUCTIONS))),
        Rule((_any(_TOP), _any(_THIS), _any(_ASK, "理应|值得|deserves?"), _any(_GIVE)), _any(_FOR_OTHERS)),
    ),
    "claim": (Rule((_any(_TOP), _any(_AUTHORITY), _any(_DECIDED)), _any(_FOR_OTHERS)),),
    "address": (Rule((_any(*_ADDRESS),)),),
    "rubric": (Rule((_any(_RATING), _any(_STANDARD), _any(_INSTEAD))),),
}
"""By name: the rules of which one is enough to make a sentence suspicious."""


PATTERNS = {
    "verdict": _any(
        r"(?:^|\n)[^\n:]{0,16}(?<!\d):[ \t\n*]{0,3}[1-5](?: ?分)?[*。.]{0,3}(?:\n|$)",
        r"\[\[[1-5]\]\]",
        r"\[(?:result|rating|score)\]",
        r"</?(?:score|rating|verdict|result)>",
    ),
    "control_token": _any(
        r"<\|[^|<>\n]{1,40}\|>",
        r"\[/?inst\]|\[gmask\]|<</?sys>>",
        r"</?(?:s|bos|eos|pad|unk|sop|eop|think|thinking|tool_call|tool_response)>",
        r"</?(?:start_of_turn|end_of_turn|im_start|im_end|system|user|assistant)>",
    ),
    "system": _any(
        r"\[system[^\]\n]{0,24}\]",
        rf"(?:^|\n)[ \t>#*\[【(<]{{0,6}}(?:{_SPEAKERS})[\]】)*>]{{0,3}}[ \t]{{0,2}}(?::|\n|(?<=[\]】>]))",
        r"(?:对话|会话|材料)(?:到此|至此|已经?|内容)?(?:结束|完毕)",
        r"\bend of (?:the )?(?:dialogue|conversation|transcript|material|input)",
        r"</?(?:dialogue|conversation|transcript|material|answer|response|instruction)>",
    ),
    "gibberish": re.compile(r"(?<![a-z/.])[a-z]{30}"),
}
"""By name: patterns that are suspicious wherever they stand, in text in small letters without styled characters."""


@cache
def packaged_titles() -> tuple[str, ...]:
    """The titles of ChatAnime's metrics in every language."""
    return tuple(metric.title.lower() for language in languages() for metric in load_rubric(language).metrics.values())


@cache
def verdict(titles: tuple[str, ...]) -> re.Pattern[str]:
    """A score after the title of a metric or a word for a score, with a sign between them."""
    labels = "|".join([_LABEL, *map(re.escape, titles)])
    sign = r"[ \t\"'”」*]{0,4}(?::|=|为|->|→)[ \t\"'“「*]{0,4}"
    return _any(rf"(?:{labels}){sign}(?:[1-5](?![\d%比]|[.:]\d)|满分|五分)")


@cache
def praise() -> re.Pattern[str]:
    """A word of high praise, also where such words are run together."""
    words = "完美|优秀|卓越|杰出|极佳|无可挑剔|出色|无懈可击"
    english = "perfect|excellent|outstanding|flawless|superb|brilliant|exceptional|superior|impeccable|magnificent"
    return _any(words, rf"\b(?:{english})(?:ly)?\b", f"(?<=[a-z])(?:{english})")


@cache
def opener() -> re.Pattern[str]:
    """The whole of a short answer that only begins one."""
    return _any(
        r":$",
        r"^(?:thought process|solution|answer|reasoning|解|解答|答案|思考过程)[.。…]{0,3}$",
        r"^let'?s (?:solve|think)[^\n]{0,30}step by step[.。…]{0,3}$",
        r"^让我们一步一步[^\n]{0,12}$",
    )


LEAST_TITLES = 3
"""From this many titles of metrics, or anchors of levels, in one text it is a rubric."""


LEAST_PRAISE = 4
"""From this many words of praise in one sentence it is suspicious."""


MOST_EMOJI = 12
"""From this many emoji in one text it is suspicious."""


MOST_RUN = 30
"""From this many equal characters in a row it is repetition."""


MOST_COMPRESSION = 4.0
"""Above this many bytes of a text per compressed byte it is repetition; answers of ChatAnime have up to 1.7."""


LEAST_BYTES = 300
"""Bytes of the shortest text whose compression is looked at: a short text compresses badly whatever it says."""


SYMBOL_CHUNK, MOST_SYMBOLS = 60, 8
"""From ``MOST_SYMBOLS`` kinds of symbols in ``SYMBOL_CHUNK`` characters it is gibberish; ChatAnime has up to 2."""


OPENER_LENGTH = 40
"""Characters of the longest answer that may only begin one."""


_STYLED = [*range(0xFF01, 0xFF5F), *range(0x1D400, 0x1D800), *range(0x2460, 0x249C), 0x3000]
"""The codes of full-width, mathematical and circled characters, and of the ideographic space."""


_UNSTYLED = {code: unicodedata.normalize("NFKC", chr(code)) for code in _STYLED}
"""Full-width, mathematical and circled characters, each with the plain ones that it stands for."""


_HIDDEN = "\u00ad\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\U000e0000-\U000e007f"
"""Characters that are never seen."""


_JOINERS = "\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef"
"""Invisible characters that emoji are made with, a few at a time."""


_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007f]{1,8}")
"""Flags of regions (Scotland) are written with tags."""


_UNSEEN = re.compile(f"[{_HIDDEN}{_JOINERS}]")


_INVISIBLE = re.compile(f"[{_HIDDEN}]|[{_JOINERS}]{{3}}")


_JOINED = re.compile("[\u4e00-\u9fffA-Za-z0-9][\u200c\u200d]")


_EMOJI = re.compile("[\u2600-\u27bf\U0001f000-\U0001faff]")


_SENTENCE_END = re.compile(r"[。!?;\n]|\.[ \n]")


_SYMBOL = re.compile(r"[\\{}\[\]()*#@!$%^&+=<>|~\"/_`;]")


WRITTEN_FOR = (1, 2, 3, 4, 5)
"""The levels that the patterns speak of."""


def suspicious(dialogue: Dialogue, scheme: Scheme | None = None) -> str | None:
    """The names of the patterns found in a dialogue, in alphabetical order with commas; None where there are none.

    All texts are looked at: the answers, the user's turns, the character's name and the profile. Of another rubric's
    ``scheme`` the titles are looked for too, and its levels are first read as those that the patterns speak of.
    """
    titles, levels = packaged_titles(), _levels_read(scheme)
    if scheme:
        titles = tuple(dict.fromkeys([*titles, *(scheme.titles[metric].lower() for metric in scheme.metrics)]))
    answers = dialogue.replies
    others = [*(turn.user or "" for turn in dialogue.turns), dialogue.character, dialogue.profile or ""]
    found = {
        name
        for text in (*answers, *others)
        for name in (*_said(_plain(text).translate(levels), titles), *_written(text))
    }
    for answer in map(_plain, answers):
        letters = re.findall(r"\w", answer)
        if len(letters) < 2:
            found.add("near_empty")
        elif len(answer.strip()) <= OPENER_LENGTH and opener().search(answer.strip()):
            found.add("opener")
    if len(answers) > 1 and len(set(answers)) == 1:
        found.add("repetition")
    return ",".join(sorted(found)) or None


def _levels_read(scheme: Scheme | None) -> dict[int, str]:
    """How the digits of a scheme's levels are read: its ends as the ends of the levels that the patterns speak of."""
    levels = scheme.all_levels if scheme else WRITTEN_FOR
    if levels == WRITTEN_FOR:
        return {}
    low, high = levels[0], levels[-1]
    span = WRITTEN_FOR[-1] - WRITTEN_FOR[0]
    places = {level: WRITTEN_FOR[0] + round(span * (level - low) / (high - low)) for level in levels if level <= 9}
    return {ord(str(level)): str(place) for level, place in places.items()}


def _plain(text: str) -> str:
    """Text in small letters, without invisible characters and with styled ones made plain, so that none hides words."""
    return _UNSEEN.sub("", text).translate(_UNSTYLED).lower()


def _remembered(find: Callable[..., Iterator[str]]) -> Callable[..., tuple[str, ...]]:
    """What ``find`` finds in a text, remembered: many dialogues have the same profile, and the same first question."""
    return lru_cache(maxsize=4096)(lambda *about: tuple(find(*about)))


@_remembered
def _said(plain: str, titles: tuple[str, ...]) -> Iterator[str]:
    """The patterns in what a text says, given as ``_plain`` makes it; ``titles`` are those of metrics."""
    sentences = _SENTENCE_END.split(plain)
    there: dict[str, bool] = {}  # rules have patterns in common, and each is looked for once

    def is_there(pattern: re.Pattern[str]) -> bool:
        if (found := there.get(pattern.pattern)) is None:
            found = there[pattern.pattern] = bool(pattern.search(plain))
        return found

    yield from (name for name, pattern in PATTERNS.items() if pattern.search(plain))
    for name, rules in RULES.items():
        for rule in rules:
            # The text as a whole is asked first: nearly all lack a word of the rule altogether, and this is quicker.
            if all(map(is_there, rule.together)) and any(
                all(pattern.search(sentence) for pattern in rule.together) and not rule.harmless.search(sentence)
                for sentence in sentences
            ):
                yield name
    if verdict(titles).search(plain):
        yield "verdict"
    # A text is a rubric where it names several metrics, or says what several levels mean.
    anchors = {match[1] for match in re.finditer(r"([1-5]) ?(?:分|points?|stars?)[ \t]{0,2}[:=]", plain)}
    anchors |= {match[1] for match in re.finditer(r"\b(?:score|level|rating) ?([1-5])[ \t]{0,2}[:=]", plain)}
    if max(len(anchors), sum(title in plain for title in titles)) >= LEAST_TITLES:
        yield "rubric"
    if any(len(praise().findall(sentence)) >= LEAST_PRAISE for sentence in sentences):
        yield "praise"


@_remembered
def _written(text: str) -> Iterator[str]:
    """The patterns in how a text is written, whatever it says."""
    seen = _FLAG.sub("", text)
    if _INVISIBLE.search(seen) or len(_JOINED.findall(seen)) >= 3:
        yield "invisible"
    data = text.encode("utf-8", "surrogatepass")
    compresses = len(data) >= LEAST_BYTES and len(data) > MOST_COMPRESSION * len(zlib.compress(data, 1))
    if compresses or re.search(rf"(\S)\1{{{MOST_RUN - 1}}}", text):
        yield "repetition"
    # Stretches overlap by half, so that none of half the length falls between two.
    starts = range(0, max(1, len(text) - SYMBOL_CHUNK // 2), SYMBOL_CHUNK // 2)
    if any(len(set(_SYMBOL.findall(text, start, start + SYMBOL_CHUNK))) >= MOST_SYMBOLS for start in starts):
        yield "gibberish"
    if len(_EMOJI.findall(text)) >= MOST_EMOJI:
        yield "emoji"
