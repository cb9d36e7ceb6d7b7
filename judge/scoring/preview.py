"""One dialogue's prompts as the judge reads them: the tree with its texts and tokens, and where the answer is read."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from typing import Any

from judge.data.dataset import BATCH_DIALOGUES
from judge.data.dialogues import example_dialogues
from judge.engines import Failure, Text
from judge.errors import InputError, plain
from judge.models.hardware import GIB
from judge.progress import SILENT, Progress
from judge.prompting.prompt_tree import Ids, PromptTree
from judge.prompting.rubric import load_rubric
from judge.scoring.judge import AnswerForm
from judge.scoring.parts import DIVERSITY, JUDGMENTS
from judge.scoring.setup import open_corpus, open_judge, open_model, settle
from judge.scoring.summary import sample_answers
from judge.scoring.worker import Work, chosen_metrics, sample
from judge.types import Dialogue, Options

LONG_ENOUGH_S = 5.0
"""After the first dialogue, batches of 1, 2, 4 … are timed until they took so many seconds, or are a batch of work."""


WRITTEN = 12
"""Tokens of what a judge that is tried writes by itself."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the engine was on some dialogues after the first, or on that one where there is no other.

    ``tokens`` are those that it had to compute, what was shared with earlier ones left out; ``loading`` is seconds of
    loading and checking the model. ``first_tokens`` and ``first_seconds`` are the same of the very first dialogue, for
    which much is computed that a run computes once. Memory in GiB is None where the model is in another process: of the
    weights; of what the packed engine keeps at most of what these prompts share; and the most that
    was in use by this process, or on its GPU.
    """

    engine: str
    dialogues: int
    tokens: int
    seconds: float
    first_tokens: int
    first_seconds: float
    loading: float
    weights_gib: float | None
    kept_gib: float | None
    peak_gib: float | None


@dataclass(frozen=True, slots=True)
class Foresight:
    """What a run would do and take.

    ``prompt_tokens`` are those of what is to do, ``unique_tokens`` the same with what prompts share counted once;
    ``pace`` is None where no dialogue is to do.
    """

    run: Path
    judge: str
    judge_id: str
    dialogues: int
    units: int
    units_done: int
    judgments: int
    judgments_done: int
    prompt_tokens: int
    unique_tokens: int
    pace: Pace | None

    @property
    def seconds(self) -> float | None:
        """Of scoring what is to do, at the measured pace; None where that is not known."""
        if self.pace is None:
            return None
        rest = max(self.unique_tokens - self.pace.first_tokens, 0)
        return self.pace.first_seconds + rest / self.pace.tokens * self.pace.seconds


class _Tokens:
    """Counts the tokens of trees, and those that no earlier tree had."""

    def __init__(self) -> None:
        self.prompt = self.unique = self.longest_prefix = self.longest_opening = 0
        self._seen: set[int] = set()

    def see(self, tree: PromptTree) -> None:
        new = {hash(path): len(path[-1]) for path in tree.shared}
        self.prompt += sum(tree.lengths)
        self.unique += tree.own + sum(size for key, size in new.items() if key not in self._seen)
        self._seen |= set(new)
        self.longest_prefix = max(self.longest_prefix, len(tree.root) + len(tree.character))
        self.longest_opening = max(self.longest_opening, len(tree.opening))


def foresee(work: Work, run: Path) -> Foresight:
    """Look at the work of a run: what is there, what is to do, and how fast the engine does some of it."""
    there, total = work.saved()
    missing = {name for name in work.dialogue_batches if not work.store.part(JUDGMENTS, name).is_file()}
    roles = [some for name, some in work.role_batches if not work.store.part(DIVERSITY, name).is_file()]
    units, tokens = len(work.dialogue_batches) + len(work.role_batches), _Tokens()
    for dialogue in _dialogues(work, missing):
        for tree in work.judge.prompts([dialogue], work.metrics)[0].trees:
            tokens.see(tree)
    for role in chain.from_iterable(roles):
        for tree in work.judge.answer_prompts([sample_answers(sample(work.corpus, role))])[0].trees:
            tokens.see(tree)
    dialogues = (one for one in _dialogues(work, missing) if work.judge.prompts([one], work.metrics)[0].trees)
    return Foresight(
        run=run,
        judge=work.judge.name,
        judge_id=work.judge.identity.judge_id,
        dialogues=len(work.corpus),
        units=units,
        units_done=units - len(missing) - len(roles),
        judgments=total,
        judgments_done=there,
        prompt_tokens=tokens.prompt,
        unique_tokens=tokens.unique,
        pace=_pace(work, dialogues, tokens),
    )


def _dialogues(work: Work, missing: set[str]) -> Iterator[Dialogue]:
    """The dialogues of the missing units, in order."""
    for name, unit in zip(work.sizes, work.corpus.batches(), strict=False):
        yield from unit.dialogues if name in missing else ()


def _pace(work: Work, dialogues: Iterator[Dialogue], of_all: _Tokens) -> Pace | None:
    """How fast the engine is on the first and some more of these dialogues; None where there are none."""
    judge, seen = work.judge, _Tokens()
    timed: list[tuple[int, int, float]] = []  # of each batch: dialogues, tokens that no earlier one had, seconds
    loading, size = 0.0, 1
    while not timed[1:] or (
        sum(seconds for _, _, seconds in timed[1:]) < LONG_ENOUGH_S and sum(n for n, _, _ in timed) < BATCH_DIALOGUES
    ):
        if not (batch := list(islice(dialogues, size))):
            break
        with work.progress.busy(f"timing {judge.name} on {len(batch):,} dialogues"):
            started = time.perf_counter()
            _ = judge.engine
            loading += time.perf_counter() - started  # nothing from the second batch on
            already, prompts = seen.unique, judge.prompts(batch, work.metrics)
            started = time.perf_counter()
            judge.judge(prompts, work.metrics)
            seconds = time.perf_counter() - started
        for tree in chain.from_iterable(one.trees for one in prompts):
            seen.see(tree)
        timed.append((len(batch), seen.unique - already, seconds))
        size = 2 ** (len(timed) - 1)
    if not timed:
        return None
    _, first_tokens, first_seconds = timed[0]
    count, new, seconds = (sum(values) for values in zip(*(timed[1:] or timed), strict=True))
    memory = _memory(judge.engine, of_all) if hasattr(judge.engine, "kept_at_most") else (None, None, None)
    return Pace(judge.engine.name, count, new, seconds, first_tokens, first_seconds, loading, *memory)


def _memory(engine: Any, tokens: _Tokens) -> tuple[float, float, float]:
    """GiB of the weights, of what the packed engine keeps at most, and of what was in use at most."""
    model = engine.model
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    kept = engine.kept_at_most(tokens.longest_prefix, tokens.longest_opening, BATCH_DIALOGUES)
    if model.device.type == "cuda":
        import torch

        peak = torch.cuda.max_memory_reserved()
    else:  # the system counts in KiB, that of Apple in bytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return weights / GIB, kept / GIB, peak / GIB


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
    answer_form: AnswerForm
    trunk: tuple[Part, ...]
    leaves: tuple[Part, ...]
    level_tokens: dict[int, tuple[tuple[str, int], ...]]

    def length(self, leaf: Part) -> int:
        """Tokens of the whole prompt that ends in a leaf."""
        return sum(len(part.token_ids) for part in (*self.trunk, leaf))


def show(
    dialogue_id: str, data: Sequence[Path] = (), options: Options | None = None, progress: Progress = SILENT
) -> Shown:
    """The prompts of a dialogue, by its id (``source/character/scenario``).

    The model is loaded only to find the form of its answers, where that is asked for and not remembered.

    Args:
        dialogue_id: which one.
        data: files or folders of dialogues; none as for ``score``.
        options: which judge, how it is asked, and about which metrics.
        progress: shows that the forms are being tried.

    Raises:
        InputError: there is no such dialogue, or data or options are wrong.
    """
    paths, options, _, hardware = settle(data, options or Options(), progress)
    scheme = load_rubric(options.language, options.rubric).scheme
    metrics = [metric for metric in chosen_metrics(scheme, options.metrics) if metric in scheme.levels]
    if not metrics:
        known = ", ".join(scheme.metrics)
        raise InputError(f"--metric {options.metrics[0]}: is not of one dialogue; choose one of {known}")
    with closing(open_corpus(paths, options)) as corpus:
        dialogue = next((one for one in corpus if one.id == dialogue_id), None)
        if dialogue is None:
            names = [one.id for one in corpus]
            wanted, like = plain(dialogue_id), plain((get_close_matches(dialogue_id, names, 1, 0.3) or names)[0])
            raise InputError(
                f"no dialogue {wanted} in the data; ids are source/character/scenario, for instance {like}"
            )
    judge = open_judge(options, open_model(options, hardware, progress), progress=progress)
    writer, identity = judge.writers[0], judge.identity
    if not dialogue.is_answered:
        raise InputError(f"dialogue {plain(dialogue.id)}: the character says nothing in a round, so no judge is asked")
    tree = writer.dialogue(dialogue, metrics)
    trunk = {"root": tree.root, "character": tree.character, "opening": tree.opening, "dialogue": tree.dialogue}
    text = writer.tokenizer.text
    return Shown(
        dialogue=dialogue,
        judge=judge.name,
        judge_id=identity.judge_id,
        layout=identity.layout,
        language=identity.language,
        answer_form=judge.answer_form,
        trunk=tuple(Part(name, text(ids), ids) for name, ids in trunk.items()),
        leaves=tuple(Part(metric, text(ids), ids) for metric, ids in zip(metrics, tree.leaves, strict=True)),
        level_tokens={
            level: tuple((text((token,)), token) for token in tokens)
            for level, tokens in zip(writer.levels, writer.level_ids, strict=True)
        },
    )


def try_judge(options: Options, progress: Progress = SILENT) -> dict[str, Any]:
    """What a judge is and does, as plain values: its form of answers with label masses, and what it writes by itself.

    Raises what ``score`` raises for a judge that cannot be used.
    """
    _, options, reason, hardware = settle((), options, progress)
    judge = open_judge(options, open_model(options, hardware, progress), progress=progress)
    with progress.busy(f"loading {judge.name}"):
        engine = judge.engine
    tokenizer, plainly = judge.writers[0].tokenizer, replace(options, answer_form="none")
    asked = open_judge(plainly, judge.model).writers[0].dialogue(example_dialogues()[0], judge.scheme.metrics[:1])
    written: Text | None = None
    if judge.model.writes:
        with progress.busy(f"asking {judge.name}"):
            written = engine.generate([asked], WRITTEN)[0][0]
    return {
        "judge": judge.name,
        "why": reason,
        "judge_id": judge.identity.judge_id,
        "engine": engine.name,
        "chat template": tokenizer.has_template,
        "answer form": judge.answer_form.name,
        "label masses": judge.answer_form.masses,
        "writes by itself": written.reason if isinstance(written, Failure) else written and tokenizer.text(written),
    }
