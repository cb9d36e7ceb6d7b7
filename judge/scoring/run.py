"""The one loop: read, judge what is missing, write it, summarise. The same call again goes on where it stopped."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from judge.data.dataset import Corpus
from judge.data.dialogues import example_files
from judge.errors import EngineError, UnfitJudge
from judge.files import write_csv
from judge.models.hardware import Hardware, detect, require_usable
from judge.progress import Progress, Silent, stoppable
from judge.prompting.rubric import load_rubric
from judge.scoring import multi_gpu, run_folder
from judge.scoring.judge import Judge
from judge.scoring.multi_gpu import WHOLE, Share
from judge.scoring.parts import DIVERSITY, JUDGMENTS
from judge.scoring.preview import Foresight, foresee
from judge.scoring.rationales import Explainer, explain_run
from judge.scoring.run_folder import Store
from judge.scoring.setup import open_judge, settle
from judge.scoring.summary import STATISTICS, diversity_table, summarise
from judge.scoring.worker import Work, role_statistics, sample
from judge.types import METRICS, RESPONSE_DIVERSITY, TOO_FEW_ANSWERS, Options, digest

EXAMPLE = "example"


ROLES_PER_UNIT = 32


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run: its folder, judge, how many judgments it holds, how many are missing by reason, and tables.

    ``suspicious`` counts dialogues with text that speaks to the judge (``judge.scoring.injection_detector``).
    ``explained`` counts those of the most notable that have rationales, where they were asked for.
    """

    run: Path
    judge: str
    judgments: int
    missing: dict[str, int]
    suspicious: int
    leaderboard: pd.DataFrame = field(repr=False)
    diversity: pd.DataFrame = field(repr=False)
    explained: int = 0


def score(
    data: Sequence[Path] = (),
    options: Options | None = None,
    progress: Progress | None = None,
    on_judge: Callable[[Judge], None] | None = None,
) -> Result:
    """Score dialogues on every metric into a run folder, and go on with a run that is already there.

    Args:
        data: files or folders of dialogues; none for ChatAnime where it was fetched and the judge is real, otherwise
            for the packaged example.
        options: what to score and how.
        progress: who is told how far it is.
        on_judge: is given the judge before anything is scored, and may refuse it by an error.

    Raises:
        InputError: data, options or the run folder are wrong; nothing was written.
        EngineError: the machine or the model failed; what was judged is kept.
        Interrupted: the user stopped the run; what was judged is kept.
    """
    options, progress = options or Options(), progress or Silent()
    hardware = detect()
    paths, options, reason = settle(data, options, hardware)
    multi_gpu.check(options.devices, hardware)
    load_rubric(options.language, options.prompts)  # before data are read, as it is quick to be wrong
    with closing(Corpus(paths, options.sources, options.characters, options.limit)) as corpus:
        judge = open_judge(options, hardware)
        run = _Run(corpus, judge, options, paths, progress)
        progress.note(f"judge {judge.name} ({reason}): {len(corpus):,} dialogues into {run.store.folder}")
        for remark in run.remarks():
            progress.note(remark)
        if on_judge:
            on_judge(judge)
        with run.telling_what_is_saved():
            with stoppable() as stop:
                run.complete(stop, hardware)
            return run.explained(run.summarise())


def look_ahead(
    data: Sequence[Path] = (), options: Options | None = None, progress: Progress | None = None
) -> Foresight:
    """What ``score`` would do with the same arguments, and what it would take; nothing is written.

    The model is loaded and timed on a few dialogues, where any are to do. Raises what ``score`` raises.
    """
    hardware = detect()
    paths, options, _ = settle(data, options or Options(), hardware)
    multi_gpu.check(options.devices, hardware)
    with closing(Corpus(paths, options.sources, options.characters, options.limit)) as corpus:
        run = _Run(corpus, open_judge(options, hardware), options, paths, progress or Silent())
        return foresee(run.work, run.store.folder)


def score_share(data: Sequence[Path], options: Options, share: Share, progress: Progress) -> dict[str, Any] | None:
    """Judge one share of a run that another process began, and say how its engine did."""
    hardware = detect()
    require_usable(hardware)
    with closing(Corpus(data, options.sources, options.characters, options.limit)) as corpus:
        run = _Run(corpus, open_judge(options, hardware), options, list(data), progress, share)
        with stoppable(quiet=True) as stop:
            run.work.complete(stop)
        return run.engine_report


def text_diversity(data: Sequence[Path] = ()) -> pd.DataFrame:
    """Response diversity from the text alone: ``diversity.csv`` without the judge's columns.

    Args:
        data: files or folders of dialogues; none for the packaged example.
    """
    with closing(Corpus(list(data) or example_files())) as corpus:
        rows = [{"judge": "", **role_statistics(sample(corpus, role))} for role in corpus.roles()]
    table = diversity_table([pd.DataFrame(rows).assign(score=None, mass=None, error=None)])
    return table[["level", "source", "character", "dialogues", *STATISTICS]]


def data_files(paths: Sequence[str]) -> list[Path]:
    """Where a run's dialogues were read, from the paths in its manifest."""
    return example_files() if list(paths) == [EXAMPLE] else [Path(path) for path in paths]


class _Run:
    """One run in the making."""

    def __init__(
        self,
        corpus: Corpus,
        judge: Judge,
        options: Options,
        data: list[Path],
        progress: Progress,
        share: Share = WHOLE,
    ) -> None:
        self.corpus, self.judge, self.options, self.given, self.progress = corpus, judge, options, data, progress
        self.metrics = tuple(metric for metric in METRICS if metric in options.metrics)
        self.dialogue_units = [self._unit(name) for name in corpus.unit_digests] if self.metrics else []
        self.role_units = dict(self._cut_roles()) if RESPONSE_DIVERSITY in options.metrics else {}
        self.asked = [*self.metrics, *([RESPONSE_DIVERSITY] if self.role_units else [])]
        self.paths = [EXAMPLE] if data == example_files() else [str(path) for path in data]
        self.store = Store(options.run or Path("results") / self._default_name(options))
        self.before = self.store.manifest
        run_folder.refuse_another(self.store, judge, self.asked)
        if self.before:
            judge.name = self.before["judge"]["name"]  # the same model under another name is the same judge
        self.explainer = Explainer(judge) if options.rationales else None
        self.work = Work(corpus, judge, self.store, self.metrics, self.dialogue_units, self.role_units, progress, share)

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

    @contextmanager
    def telling_what_is_saved(self) -> Iterator[None]:
        """Where the machine fails, also say how much is saved and how to go on."""
        try:
            yield
        except UnfitJudge:
            raise
        except EngineError as error:
            there, total = self.work.saved()
            saved = f"{there:,} of {total:,} judgments are saved in {self.store.folder}"
            raise EngineError(f"{error}; {saved}; fix that, then", can_go_on=True) from error

    def complete(self, stop: threading.Event, hardware: Hardware) -> None:
        """Judge and write every unit that is missing; ``stop`` ends the work after the unit in flight."""
        self.store.tidy()
        run_folder.begin(self.store, self.judge, hardware, self._about())
        started = time.monotonic()
        reports: list[dict[str, Any]] = []
        try:
            if self.options.devices and not self.work.is_done:
                reports = self._complete_on_devices(stop)
            else:
                self.work.complete(stop)
        finally:
            reports += [self.engine_report] if self.engine_report else []
            with suppress(EngineError):  # of a disk that failed the work above, or will fail the tables
                run_folder.note(self.store, reports, time.monotonic() - started)

    def _complete_on_devices(self, stop: threading.Event) -> list[dict[str, Any]]:
        """A process for each device judges its share; the reports of their engines."""
        self.judge.unload()
        self.progress.begin("judgments", *self.work.counts())
        return multi_gpu.complete(
            score_share, self.given, replace(self.options, run=self.store.folder), self.progress, stop
        )

    @property
    def engine_report(self) -> dict[str, Any] | None:
        """What the engine says of itself; None where none was needed."""
        return self.judge.engine.report if self.judge.is_loaded else None

    def _about(self) -> dict[str, Any]:
        return {
            "metrics": self.asked,
            "data": {"paths": self.paths, "digest": self.corpus.digest, "dialogues": len(self.corpus)},
            "sources": self.corpus.values("source"),
            "units": {JUDGMENTS: self.dialogue_units, DIVERSITY: list(self.role_units)},
        }

    def summarise(self) -> Result:
        """Write the tables from the parts, and the end of the story into the manifest."""
        there, total = self.work.saved()
        if there < total:
            raise EngineError(f"{self.store.folder}: a part of the run was taken away meanwhile")
        counts: Counter[str] = Counter()
        flagged: list[int] = []
        parts = _counted(_flagged(self.store.read_parts(JUDGMENTS, self.dialogue_units), flagged), counts)
        with self.store.replacing("scores.csv") as text:
            leaderboard = summarise(parts, self.metrics, text)
        varied = diversity_table(list(_counted(self.store.read_parts(DIVERSITY, self.role_units), counts)))
        for name, table in (("leaderboard.csv", leaderboard), ("diversity.csv", varied)):
            with self.store.replacing(name) as text:
                write_csv(table, text)
        counts.pop(TOO_FEW_ANSWERS, None)  # nothing to rate, so nothing is missing
        missing = dict(sorted((error, count) for error, count in counts.items() if error))
        judgments, suspicious = counts.total(), sum(flagged)
        run_folder.finish(self.store, {"judgments": judgments, "missing": missing, "suspicious": suspicious})
        return Result(self.store.folder, self.judge.name, judgments, missing, suspicious, leaderboard, varied)

    def explained(self, result: Result) -> Result:
        """Where rationales were asked for, write those that are missing."""
        if self.explainer is None:
            return result
        most = self.options.rationales
        with stoppable() as stop:
            count = explain_run(self.explainer, self.store, self.corpus, most, self.progress, stop)
        return replace(result, explained=count)


def _counted(parts: Iterator[pd.DataFrame], counts: Counter[str]) -> Iterator[pd.DataFrame]:
    """The parts as they come, with their rows counted by error ("" for none)."""
    for part in parts:
        counts.update(part["error"].fillna("").tolist())
        yield part


def _flagged(parts: Iterator[pd.DataFrame], flagged: list[int]) -> Iterator[pd.DataFrame]:
    """The parts as they come, with how many dialogues of each are suspicious."""
    for part in parts:
        flagged.append(int(part.drop_duplicates(["source", "character", "scenario"])["suspicious"].notna().sum()))
        yield part
