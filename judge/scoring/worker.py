"""The work of a run: judge the batches that are missing, or one share of them, and write each as a part."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from calibration.names import meant
from judge.data.dataset import BATCH_DIALOGUES, Batch, Corpus
from judge.data.dialogues import example_files
from judge.engines import Engine
from judge.engines.server import ServerEngine
from judge.errors import InputError, Interrupted
from judge.progress import Progress
from judge.remote import WILD, address_of
from judge.scoring import run_folder, summary
from judge.scoring.injection_detector import suspicious
from judge.scoring.judge import Judge, Judged, MassCheck, Prompts
from judge.scoring.multi_gpu import WHOLE, Share
from judge.scoring.parts import DIVERSITY, JUDGMENTS, columns
from judge.scoring.run_folder import EXAMPLE, Store
from judge.types import NOT_FINITE, Dialogue, Judgment, Options, Scheme, digest

Role = tuple[str, str]
"""A system (source), and a character that it plays."""


Named = tuple[str, Batch]
"""The name of a batch's part, and the batch."""


ROLES_PER_BATCH = 32
"""Roles whose response diversity is judged and written together as one batch."""


Item = TypeVar("Item")


Value = TypeVar("Value")


class Work:
    """A run's work: which dialogues are judged by whom, on what, and into which folder.

    Everything about a run that does not change while it is made is held here, and nowhere else. Batches are known by
    the names of their parts. ``units`` has the names of all batches of the run, by kind of part. ``dialogue_batches``
    has the names of this process's batches of dialogues, and ``role_batches`` those of its batches of response
    diversity, each with its roles. ``sizes`` has the number of dialogues of every batch of the run, in order.

    Args:
        corpus: all dialogues of the run, also where the work is a share of them.
        judge: who judges; it goes on under the name that a run in the folder began with.
        options: what to score; ``run`` may be None for the default folder.
        data: the files or folders that the corpus was read from.
        progress: what is told how far the work is.
        share: which of the batches are this process's.

    Raises:
        InputError: the folder is no run, or holds one of another judge or on other metrics.
    """

    def __init__(
        self,
        corpus: Corpus,
        judge: Judge,
        options: Options,
        data: Sequence[Path],
        progress: Progress,
        share: Share = WHOLE,
    ) -> None:
        self.corpus, self.progress, self._min_mass = corpus, progress, options.min_mass
        self.asked = chosen_metrics(judge.scheme, options.metrics)
        self.metrics = tuple(metric for metric in self.asked if metric != judge.scheme.set_metric)
        self.data = [EXAMPLE] if list(data) == example_files() else [address_of(path) or str(path) for path in data]
        judge_id = judge.identity.judge_id

        def part_name(content: str) -> str:
            """The name of a batch's part, by its content, the judge and the metrics: if one changes, it is another."""
            return digest([judge_id, self.metrics, content], 16)

        # The default name is made of the data's place, the judge and what was chosen, and not of what the data say: so
        # the same command finds its own run again after an answer was edited.
        places = [address_of(path) or str(Path(path).resolve()) for path in self.data if path != EXAMPLE]
        chosen = digest([part_name(""), places, [options.sources, options.characters, options.limit, self.asked]], 8)
        place = Path(self.data[0]).resolve()
        if not place.exists():  # a pattern, whose fixed part names the run
            place = Path(next(part for part in reversed(place.parts) if not WILD.search(part)))
        default = f"{place.stem[:40]}-{judge.name.lower().replace('/', '-')}-{chosen}"
        self.store = Store(options.run or Path("results") / default)
        self.before = self.store.manifest
        run_folder.refuse_another(self.store, judge, self.asked)
        if self.before:  # with larger batches, as its data grow, all of it would be judged anew
            corpus.cut(self.before["data"].get("batch_dialogues", BATCH_DIALOGUES))

        dialogue_batches = [part_name(name) for name in corpus.batch_digests] if self.metrics else []
        role_batches: list[tuple[str, list[Role]]] = []
        if judge.scheme.set_metric in self.asked:
            roles = corpus.roles()
            chunks = [roles[start : start + ROLES_PER_BATCH] for start in range(0, len(roles), ROLES_PER_BATCH)]
            role_batches = [(part_name(digest([chunk, corpus.digest])), chunk) for chunk in chunks]
        self.sizes = dict(zip(dialogue_batches, corpus.batch_sizes, strict=False))
        self.units = {JUDGMENTS: dialogue_batches, DIVERSITY: [name for name, _ in role_batches]}
        self.share, self.dialogue_batches, self.role_batches = share, share.of(dialogue_batches), share.of(role_batches)
        self.judge = judge.named(self.before["judge"]["name"]) if self.before else judge

    @cached_property
    def done(self) -> set[str]:
        """The names of the batches whose parts were there when this was first asked."""
        found = {name for name in self.dialogue_batches if self.store.is_done(JUDGMENTS, name)}
        found |= {name for name, _ in self.role_batches if self.store.is_done(DIVERSITY, name)}
        for path in self.store.set_aside:
            self.progress.note(f"a part was damaged since it was written: it is now {path}, and is judged again")
        return found

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to judge."""
        return len(self.done) == len(self.dialogue_batches) + len(self.role_batches)

    def complete(self, stop: threading.Event) -> None:
        """Judge and write what is missing; Interrupted once ``stop`` is set.

        A batch in work is done first. Of a server, only the requests in flight are: their answers are kept.
        """
        try:
            for stage in (self._judge_dialogues(stop), self._judge_answers(stop)):
                for _ in stage:
                    if stop.is_set():
                        raise Interrupted("stopped")
        except Interrupted as error:
            raise Interrupted(f"stopped; all judged so far is in {self.store};", can_go_on=True) from error

    def counts(self) -> tuple[int, int]:
        """How many judgments there are in all, and how many are there."""
        dialogues, answers = self._counts(JUDGMENTS), self._counts(DIVERSITY)
        return dialogues[0] + answers[0], dialogues[1] + answers[1]

    def saved(self) -> tuple[int, int]:
        """How many judgments are in a part or a log by now, and how many there are in all."""
        sizes = [(kind, name, size) for kind in (JUDGMENTS, DIVERSITY) for name, size in self._sizes(kind).items()]
        there = sum(
            size if self.store.part(kind, name).is_file() else self._logged(kind, name) for kind, name, size in sizes
        )
        return there, sum(size for _, _, size in sizes)

    def _logged(self, kind: str, name: str) -> int:
        """How many judgments of a batch are in its log; a row is of one order of the levels."""
        return self.store.answers(kind, name).rows // len(self.judge.writers)

    def _sizes(self, kind: str) -> dict[str, int]:
        """How many judgments each of this process's batches of a kind has, by its name."""
        if kind == JUDGMENTS:
            return {name: self.sizes[name] * len(self.metrics) for name in self.dialogue_batches}
        return {name: len(roles) for name, roles in self.role_batches}

    def _counts(self, kind: str) -> tuple[int, int]:
        """How many judgments of a kind there are in all, and how many are done."""
        sizes = self._sizes(kind)
        return sum(sizes.values()), sum(size for name, size in sizes.items() if name in self.done)

    def _judge_dialogues(self, stop: threading.Event) -> Iterator[None]:
        """Write the missing parts of judgments, as many a step as the engine takes together."""
        self.progress.begin("dialogues", *self._counts(JUDGMENTS))
        check = self.mass_check(JUDGMENTS)

        def prompts(window: list[Named]) -> list[Prompts]:
            return self.judge.prompts([d for _, batch in window for d in batch.dialogues], self.metrics)

        # The prompts of the next step are written while the engine is busy with this one.
        for window, asked in ahead(self._windows(), prompts):
            names = [name for name, batch in window for _ in batch.dialogues]
            batches = {id(tree): name for name, same in zip(names, asked, strict=True) for tree in same.trees}
            self._ready(stop, JUDGMENTS, batches)
            judged = iter(self.judge.judge(asked, self.metrics))
            for name, batch in window:
                found = [next(judged) for _ in batch.dialogues]
                check.see(one.mass for dialogue in found for one in dialogue.judgments if was_asked(one.error))
                self.store.write_part(JUDGMENTS, name, dialogue_rows(self.judge, self.metrics, batch.dialogues, found))
                self.progress.advance(len(found) * len(self.metrics), sum(sum(d.prompt_tokens) for d in found))
            yield
        check.conclude()

    def _windows(self) -> Iterator[list[Named]]:
        """The missing batches of dialogues, together until they have as many dialogues as the engine takes at best."""
        missing, window = set(self.dialogue_batches) - self.done, list[Named]()
        for name, batch in zip(self.sizes, self.corpus.batches(), strict=False):
            if name not in missing:
                continue  # before the engine is asked for, as that loads the model: a finished run needs none
            window.append((name, batch))
            if sum(len(batch.dialogues) for _, batch in window) >= self._engine().window:
                yield window
                window = []
        if window:
            yield window

    def _engine(self) -> Engine:
        """The judge's engine; loading it is said where it takes long."""
        if not self.judge.is_loaded:
            with self.progress.busy(f"loading {self.judge.name}"):
                return self.judge.engine
        return self.judge.engine

    def mass_check(self, kind: str) -> MassCheck:
        """A check of the level mass that has seen what earlier sessions of the run judged."""
        check = self.judge.mass_check(len(self.metrics) or 1, self._min_mass)
        for part in self.store.read_parts(kind, [name for name in self._sizes(kind) if name in self.done]):
            check.see(part["mass"][part["error"].isna() | (part["error"] == NOT_FINITE)])
            if check.is_done:
                break
        return check

    def _ready(self, stop: threading.Event, kind: str, batches: Mapping[int, str] | str) -> None:
        """Have the engine tell its progress; one that asks a server also keeps every answer, and stops when asked.

        ``batches`` has the batch of each tree, by its ``id()``; or is that of all.
        """
        engine = self._engine()
        engine.on_progress = self.progress.under_way
        if isinstance(engine, ServerEngine):
            log = cache(partial(self.store.answers, kind))
            engine.log_of = lambda tree: log(batches if isinstance(batches, str) else batches[id(tree)])
            engine.stop_by(stop)

    def _judge_answers(self, stop: threading.Event) -> Iterator[None]:
        """Write the missing parts of response diversity, one a step."""
        todo = [(name, roles) for name, roles in self.role_batches if name not in self.done]
        self.progress.begin("response diversity", *self._counts(DIVERSITY))
        check = self.mass_check(DIVERSITY)
        for name, roles in todo:
            samples = [sample(self.corpus, role) for role in roles]
            self._ready(stop, DIVERSITY, name)
            judgments = self.judge.judge_answers([summary.sample_answers(dialogues) for dialogues in samples])
            check.see(judgment.mass for judgment in judgments if was_asked(judgment.error))
            self.store.write_part(DIVERSITY, name, role_rows(self.judge, samples, judgments))
            self.progress.advance(len(roles), 0)
            yield
        check.conclude()


def chosen_metrics(scheme: Scheme, names: Sequence[str]) -> list[str]:
    """The metrics of a rubric that are to be judged, in its order: those named by id or title, or all.

    Raises:
        InputError: the rubric has no such metric.
    """
    titles = {scheme.titles[metric]: metric for metric in scheme.all_metrics if metric in scheme.titles}
    ids = titles | {metric: metric for metric in scheme.all_metrics}
    found = []
    for name in names:
        if (known := meant(name, ids)) is None:
            listed = ", ".join(scheme.all_metrics)
            raise InputError(f"--metrics {name}: not a metric of the rubric {scheme.rubric}; choose from {listed}")
        found.append(ids[known])
    return [metric for metric in scheme.all_metrics if not names or metric in found]


def ahead(items: Iterable[Item], work: Callable[[Item], Value]) -> Iterator[tuple[Item, Value]]:
    """Each item with what ``work`` makes of it, which is done in a thread while the item before it is in use."""
    with ThreadPoolExecutor(1) as pool:
        before = None
        for item in items:
            value = pool.submit(work, item)
            if before:
                yield before[0], before[1].result()
            before = item, value
        if before:
            yield before[0], before[1].result()


def sample(corpus: Corpus, role: Role) -> list[Dialogue]:
    """The dialogues of a role by which its response diversity is measured."""
    return corpus.sample(*role, summary.MOST_DIALOGUES)


def role_statistics(dialogues: list[Dialogue]) -> dict[str, Any]:
    """Names and text statistics of a system's dialogues as a character."""
    names = {"source": dialogues[0].source, "character": dialogues[0].character, "dialogues": len(dialogues)}
    return {**names, **summary.text_statistics(dialogues)}


def dialogue_rows(
    judge: Judge, metrics: Sequence[str], dialogues: Iterable[Dialogue], judged: Iterable[Judged]
) -> list[dict[str, Any]]:
    """The rows of a part of judgments: one per dialogue and metric. ``judged`` may go on after the last dialogue."""
    signature, levels, rows = _signature(judge), judge.scheme.all_levels, []
    for dialogue, found in zip(dialogues, judged, strict=False):
        flags = suspicious(dialogue, judge.scheme)
        for metric, judgment, tokens in zip(metrics, found.judgments, found.prompt_tokens, strict=True):
            rows.append(
                {
                    **signature,
                    "source": dialogue.source,
                    "character": dialogue.character,
                    "scenario": dialogue.scenario,
                    "metric": metric,
                    "content_digest": dialogue.content_digest,
                    **columns(judgment, levels),
                    "suspicious": flags,
                    "prompt_tokens": tokens or None,
                }
            )
    return rows


def role_rows(judge: Judge, samples: Sequence[list[Dialogue]], judgments: Sequence[Judgment]) -> list[dict[str, Any]]:
    """The rows of a part of response diversity: one per role, whose dialogues are given."""
    signature, levels = _signature(judge), judge.scheme.all_levels
    return [
        {
            **signature,
            **role_statistics(dialogues),
            **columns(judgment, levels),
        }
        for dialogues, judgment in zip(samples, judgments, strict=True)
    ]


def _signature(judge: Judge) -> dict[str, str]:
    """The columns that every row says of its judge."""
    return {"judge_id": judge.identity.judge_id, "judge": judge.name}


def was_asked(error: str | None) -> bool:
    """Whether the model was asked for a judgment of this error at all, and so could have answered with a level."""
    return error in (None, NOT_FINITE)
