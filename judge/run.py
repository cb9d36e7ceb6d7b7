"""The one loop: read, judge what is missing, write it, summarise. The same call again goes on where it stopped."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from judge import diversity, manifest
from judge.checkpoint import resolve
from judge.corpus import Corpus, Unit
from judge.dialogues import example_files
from judge.errors import EngineError, Interrupted, UnfitJudge
from judge.hardware import Hardware, detect, require_usable
from judge.judging import Judge, Judged, MassCheck
from judge.options import Options, choose_judge, default_data
from judge.progress import Progress, Silent
from judge.rubric import load_rubric
from judge.stopping import stoppable
from judge.store import DIVERSITY, JUDGMENTS, Store
from judge.summary import STATISTICS, diversity_table, summarise
from judge.types import LEVELS, METRICS, NOT_FINITE, RESPONSE_DIVERSITY, TOO_FEW_ANSWERS, Dialogue, Judgment, digest

EXAMPLE = "example"
ROLES_PER_UNIT = 32
GO_ON = "run the same command again to go on"


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run: its folder, judge, how many judgments it holds, how many are missing by reason, and tables."""

    run: Path
    judge: str
    judgments: int
    missing: dict[str, int]
    leaderboard: pd.DataFrame = field(repr=False)
    diversity: pd.DataFrame = field(repr=False)


def score(data: Sequence[Path] = (), options: Options | None = None, progress: Progress | None = None) -> Result:
    """Score dialogues on every metric into a run folder, and go on with a run that is already there.

    Args:
        data: files or folders of dialogues; none for ChatAnime where it was fetched and the judge is real, otherwise
            for the packaged example.
        options: what to score and how.
        progress: who is told how far it is.

    Raises:
        InputError: data, options or the run folder are wrong; nothing was written.
        EngineError: the machine or the model failed; what was judged is kept.
        Interrupted: the user stopped the run; what was judged is kept.
    """
    options, progress = options or Options(), progress or Silent()
    hardware = detect()
    require_usable(hardware)
    name, reason = choose_judge(data, options.judge, hardware)
    rubric = load_rubric(options.language, options.prompts)
    paths = list(data) or default_data(name)
    with closing(Corpus(paths, options.sources, options.characters, options.limit)) as corpus:
        judge = Judge(resolve(name), rubric, hardware, options.layout, options.orderings)
        run = _Run(corpus, judge, options, paths, progress)
        progress.note(f"judge {judge.name} ({reason}): {len(corpus):,} dialogues into {run.store.folder}")
        for remark in run.remarks():
            progress.note(remark)
        with stoppable() as stop:
            run.complete(stop, hardware)
        return run.summarise()


def text_diversity(data: Sequence[Path] = ()) -> pd.DataFrame:
    """Response diversity from the text alone: ``diversity.csv`` without the judge's columns.

    Args:
        data: files or folders of dialogues; none for the packaged example.
    """
    with closing(Corpus(list(data) or example_files())) as corpus:
        rows = [{"judge": "", **_role_statistics(_sample(corpus, role))} for role in corpus.roles()]
    table = diversity_table([pd.DataFrame(rows).assign(score=None, mass=None, error=None)])
    return table[["level", "source", "character", "dialogues", *STATISTICS]]


class _Run:
    """One run in the making."""

    def __init__(self, corpus: Corpus, judge: Judge, options: Options, paths: list[Path], progress: Progress) -> None:
        self.corpus, self.judge, self.progress = corpus, judge, progress
        self.metrics = tuple(metric for metric in METRICS if metric in options.metrics)
        self.dialogue_units = [self._unit(name) for name in corpus.unit_digests] if self.metrics else []
        self.role_units = dict(self._cut_roles()) if RESPONSE_DIVERSITY in options.metrics else {}
        self.asked = [*self.metrics, *([RESPONSE_DIVERSITY] if self.role_units else [])]
        self.paths = [EXAMPLE] if paths == example_files() else [str(path) for path in paths]
        self.store = Store(options.run or Path("results") / self._default_name(options))
        self.before = self.store.manifest
        manifest.refuse_another(self.store, judge, self.asked)
        if self.before:
            judge.name = self.before["judge"]["name"]  # the same model under another name is the same judge

    def _unit(self, content: str) -> str:
        """The name of a unit's part: what it is, by which judge, on which metrics."""
        return digest([self.judge.identity.judge_id, self.metrics, content], 16)

    def _cut_roles(self) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Units of response diversity: some roles (a source as a character) each, by the unit's name."""
        roles = self.corpus.roles()
        for start in range(0, len(roles), ROLES_PER_UNIT):
            chunk = roles[start : start + ROLES_PER_UNIT]
            yield self._unit(digest([chunk, self.corpus.digest])), chunk

    def _default_name(self, options: Options) -> str:
        """Made of the data's place, the judge and what was chosen, so that the same command finds its own run."""
        places = [str(Path(path).resolve()) for path in self.paths if path != EXAMPLE]
        chosen = [options.sources, options.characters, options.limit, self.asked]
        data = Path(self.paths[0]).resolve().stem[:40]
        return f"{data}-{self.judge.name.lower().replace('/', '-')}-{digest([self._unit(''), places, chosen], 8)}"

    def remarks(self) -> Iterator[str]:
        """What the user should know of the data before it is judged."""
        shared, pairs = self.corpus.shared()
        if shared < pairs:
            yield f"only {shared:,} of {pairs:,} pairs of character and scenario are in every source: compare with care"
        left_out = set(self.before["units"][JUDGMENTS]) - set(self.dialogue_units) if self.before else set()
        if left_out:
            yield f"{len(left_out):,} parts of earlier data in this run are kept, but not in its tables any more"

    def complete(self, stop: threading.Event, hardware: Hardware) -> None:
        """Judge and write every unit that is missing; ``stop`` ends the work after the unit in flight."""
        manifest.begin(self.store, self.judge, hardware, self._about())
        started = time.monotonic()
        try:
            for stage in (self._judge_dialogues(), self._judge_answers()):
                for _ in stage:
                    if stop.is_set():
                        raise Interrupted(f"stopped; all judged so far is in {self.store.folder}; {GO_ON}")
        except UnfitJudge:
            raise
        except EngineError as error:
            raise EngineError(f"{error}; what was judged is in {self.store.folder}; mend it, then {GO_ON}") from error
        finally:
            manifest.note(self.store, self._engine_name(), time.monotonic() - started)

    def _engine_name(self) -> str | None:
        return self.judge.engine.name if self.judge.is_loaded else None

    def _about(self) -> dict[str, Any]:
        return {
            "metrics": self.asked,
            "data": {"paths": self.paths, "digest": self.corpus.digest, "dialogues": len(self.corpus)},
            "sources": self.corpus.values("source"),
            "units": {JUDGMENTS: self.dialogue_units, DIVERSITY: list(self.role_units)},
        }

    def _judge_dialogues(self) -> Iterator[None]:
        """Write the missing parts of judgments, one a step."""
        done = {name for name in self.dialogue_units if self.store.is_done(JUDGMENTS, name)}
        sizes = dict(zip(self.dialogue_units, self.corpus.unit_sizes, strict=False))
        there = sum(sizes[name] for name in done)
        self.progress.begin("dialogues", sum(sizes.values()) * len(self.metrics), there * len(self.metrics))
        check = self._mass_check(JUDGMENTS, [name for name in self.dialogue_units if name in done])
        for name, unit in zip(self.dialogue_units, self.corpus.units(), strict=False):
            if name not in done:
                self._judge_unit(name, unit, check)
                yield
        check.conclude()

    def _mass_check(self, kind: str, done: list[str]) -> MassCheck:
        """A check that knows what earlier sessions of the run saw."""
        check = MassCheck(self.judge.name, len(self.metrics) or 1)
        for part in self.store.read_parts(kind, done):
            check.see(part["mass"][part["error"].isna() | (part["error"] == NOT_FINITE)])
            if check.is_done:
                break
        return check

    def _judge_unit(self, name: str, unit: Unit, check: MassCheck) -> None:
        judged = self.judge.judge(unit.dialogues, self.metrics)
        check.see(judgment.mass for dialogue in judged for judgment in dialogue.judgments if _was_asked(judgment))
        self.store.write_part(JUDGMENTS, name, list(self._rows(unit, judged)))
        tokens = sum(sum(dialogue.prompt_tokens) for dialogue in judged)
        self.progress.advance(len(judged) * len(self.metrics), tokens)

    def _rows(self, unit: Unit, judged: list[Judged]) -> Iterator[dict[str, Any]]:
        for dialogue, found in zip(unit.dialogues, judged, strict=True):
            for metric, judgment, tokens in zip(self.metrics, found.judgments, found.prompt_tokens, strict=True):
                yield {
                    **self._signature(dialogue.source, dialogue.character),
                    "scenario": dialogue.scenario,
                    "metric": metric,
                    "content_digest": dialogue.content_digest,
                    **_columns(judgment),
                    "prompt_tokens": tokens or None,
                }

    def _signature(self, source: str, character: str) -> dict[str, str]:
        judge_id = self.judge.identity.judge_id
        return {"judge_id": judge_id, "judge": self.judge.name, "source": source, "character": character}

    def _judge_answers(self) -> Iterator[None]:
        """Write the missing parts of response diversity, one a step."""
        todo = {name: roles for name, roles in self.role_units.items() if not self.store.is_done(DIVERSITY, name)}
        total = sum(len(roles) for roles in self.role_units.values())
        self.progress.begin("response diversity", total, total - sum(map(len, todo.values())))
        check = self._mass_check(DIVERSITY, [name for name in self.role_units if name not in todo])
        for name, roles in todo.items():
            samples = [_sample(self.corpus, role) for role in roles]
            judgments = self.judge.judge_answers([diversity.sample_answers(sample) for sample in samples])
            check.see(judgment.mass for judgment in judgments if _was_asked(judgment))
            rows = [
                {**self._signature(*role), **_role_statistics(sample), **_columns(judgment)}
                for role, sample, judgment in zip(roles, samples, judgments, strict=True)
            ]
            self.store.write_part(DIVERSITY, name, rows)
            self.progress.advance(len(roles), 0)
            yield
        check.conclude()

    def summarise(self) -> Result:
        """Write the tables from the parts, and the end of the story into the manifest."""
        counts: Counter[str] = Counter()
        parts = _counted(self.store.read_parts(JUDGMENTS, self.dialogue_units), counts)
        with self.store.replacing("scores.csv") as text:
            leaderboard = summarise(parts, self.metrics, text)
        varied = diversity_table(list(_counted(self.store.read_parts(DIVERSITY, self.role_units), counts)))
        for name, table in (("leaderboard.csv", leaderboard), ("diversity.csv", varied)):
            with self.store.replacing(name) as text:
                table.to_csv(text, index=False, float_format="%.4f", lineterminator="\n")
        counts.pop(TOO_FEW_ANSWERS, None)  # nothing to rate, so nothing is missing
        missing = dict(sorted((error, count) for error, count in counts.items() if error))
        manifest.finish(self.store, {"judgments": counts.total(), "missing": missing})
        return Result(self.store.folder, self.judge.name, counts.total(), missing, leaderboard, varied)


def _was_asked(judgment: Judgment) -> bool:
    """Whether the model was asked at all, and so could have answered with a level."""
    return judgment.error in (None, NOT_FINITE)


def _sample(corpus: Corpus, role: tuple[str, str]) -> list[Dialogue]:
    return corpus.sample(*role, diversity.MOST_DIALOGUES)


def _role_statistics(sample: list[Dialogue]) -> dict[str, Any]:
    """Names and text statistics of a source's dialogues as a character."""
    names = {"source": sample[0].source, "character": sample[0].character, "dialogues": len(sample)}
    return {**names, **diversity.text_statistics(sample)}


def _counted(parts: Iterator[pd.DataFrame], counts: Counter[str]) -> Iterator[pd.DataFrame]:
    """The parts as they come, with their rows counted by error ("" for none)."""
    for part in parts:
        counts.update(part["error"].fillna("").tolist())
        yield part


def _columns(judgment: Judgment) -> dict[str, Any]:
    """A judgment as columns; missing stays missing."""
    probabilities = judgment.probabilities or (None,) * len(LEVELS)
    levels = {f"p{level}": p for level, p in zip(LEVELS, probabilities, strict=True)}
    return {**levels, "mass": judgment.mass, "score": judgment.score, "error": judgment.error}
