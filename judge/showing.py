"""One dialogue's prompts as the judge reads them: the tree with its texts and tokens, and where the answer is read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from judge.asking import settle
from judge.choosing import open_judge
from judge.corpus import Corpus
from judge.errors import InputError, plain
from judge.hardware import detect
from judge.judging import Judge
from judge.options import Options
from judge.prompt import Ids
from judge.types import LEVELS, METRICS, Dialogue


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a prompt: what it is, its text as the tokens write it, and the tokens."""

    name: str
    text: str
    token_ids: Ids


@dataclass(frozen=True, slots=True)
class Shown:
    """The prompts of a dialogue: that of a metric is all of ``trunk`` and its part of ``leaves``, and then the answer.

    ``level_tokens`` has for each level the tokens that are read there, as (text, id).
    """

    dialogue: Dialogue
    judge: str
    judge_id: str
    layout: str
    language: str
    trunk: tuple[Part, ...]
    leaves: tuple[Part, ...]
    level_tokens: dict[int, tuple[tuple[str, int], ...]]

    def length(self, leaf: Part) -> int:
        """Tokens of the whole prompt that ends in a leaf."""
        return sum(len(part.token_ids) for part in (*self.trunk, leaf))


def show(dialogue_id: str, data: Sequence[Path] = (), options: Options | None = None) -> Shown:
    """The prompts of a dialogue, by its id (``source/character/scenario``); no model is loaded.

    Args:
        dialogue_id: which one.
        data: files or folders of dialogues; none as for ``score``.
        options: which judge, how it is asked, and about which metrics.

    Raises:
        InputError: there is no such dialogue, or data or options are wrong.
    """
    hardware = detect()
    paths, options, _ = settle(data, options or Options(), hardware)
    dialogue = _found(dialogue_id, paths)
    judge = open_judge(options, hardware)
    metrics = [metric for metric in METRICS if metric in options.metrics]
    if not metrics:
        raise InputError(f"--metric {options.metrics[0]}: is not of one dialogue; choose one of {', '.join(METRICS)}")
    return _shown(dialogue, judge, metrics)


def _found(dialogue_id: str, paths: Sequence[Path]) -> Dialogue:
    with closing(Corpus(paths)) as corpus:
        names: list[str] = []
        for dialogue in corpus:
            if dialogue.id == dialogue_id:
                return dialogue
            names.append(dialogue.id)
    near = (get_close_matches(dialogue_id, names, 1, 0.3) or names)[0]
    wanted, like = plain(dialogue_id), plain(near)
    raise InputError(f"no dialogue {wanted} in the data; ids are source/character/scenario, for instance {like}")


def _shown(dialogue: Dialogue, judge: Judge, metrics: Sequence[str]) -> Shown:
    writer, identity = judge.writers[0], judge.identity
    trees = judge.prompts([dialogue], metrics)[0]
    if not trees:
        raise InputError(f"dialogue {plain(dialogue.id)}: the character says nothing in a round, so no judge is asked")
    tree = trees[0]
    trunk = {"root": tree.root, "character": tree.character, "opening": tree.opening, "dialogue": tree.dialogue}
    text = writer.tokenizer.text
    return Shown(
        dialogue=dialogue,
        judge=judge.name,
        judge_id=identity.judge_id,
        layout=identity.layout,
        language=identity.language,
        trunk=tuple(Part(name, text(ids), ids) for name, ids in trunk.items()),
        leaves=tuple(Part(metric, text(ids), ids) for metric, ids in zip(metrics, tree.leaves, strict=True)),
        level_tokens={
            level: tuple((text((token,)), token) for token in tokens)
            for level, tokens in zip(LEVELS, writer.level_ids, strict=True)
        },
    )
