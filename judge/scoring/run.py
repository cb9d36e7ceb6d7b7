"""A run from data to tables: read, judge what is missing, write it, summarise. The same call again goes on.

What is judged and how it is cut into batches is for ``judge.scoring.worker``.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from judge.data.dataset import Corpus
from judge.data.dialogues import example_files
from judge.errors import EngineError, UnfitJudge
from judge.files import write_csv
from judge.models.hardware import Hardware, detect, require_usable
from judge.progress import SILENT, Progress, stoppable
from judge.prompting.rubric import load_rubric, packaged
from judge.scoring import multi_gpu, run_folder
from judge.scoring.judge import Judge
from judge.scoring.multi_gpu import Share
from judge.scoring.parts import DIVERSITY, JUDGMENTS, keep_dialogues
from judge.scoring.preview import Foresight, foresee
from judge.scoring.rationales import Explainer, explain_run
from judge.scoring.setup import open_corpus, open_judge, open_model, settle
from judge.scoring.summary import STATISTICS, diversity_table, summarise
from judge.scoring.worker import Work, chosen_metrics, role_statistics, sample
from judge.types import AS_ASKED, TOO_FEW_ANSWERS, Options


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run: its folder, judge, how many judgments it holds, how many are missing by reason, and tables.

    ``chosen`` says why it was this judge, at the run's beginning.
    ``suspicious`` counts dialogues with text that speaks to the judge (``judge.scoring.injection_detector``).
    ``diversity`` is None where the rubric's set metric was not judged, or there is none.
    ``explained`` counts those of the most notable that have rationales, where they were asked for.
    """

    run: Path
    judge: str
    judgments: int
    missing: dict[str, int]
    suspicious: int
    leaderboard: pd.DataFrame = field(repr=False)
    diversity: pd.DataFrame | None = field(repr=False)
    chosen: str = AS_ASKED
    explained: int = 0


def score(
    data: Sequence[Path] = (),
    options: Options | None = None,
    progress: Progress | None = None,
    on_judge: Callable[[Judge], None] | None = None,
) -> Result:
    """Score dialogues on every metric into a run folder, and go on with a run that is already there.

    Args:
        data: files or folders of dialogues; none for ChatAnime where it was fetched and a real judge was named or has
            a GPU, otherwise for the packaged example.
        options: what to score and how.
        progress: who is told how far it is.
        on_judge: is given the judge before anything is scored, and may refuse it by an error.

    Raises:
        InputError: data, options or the run folder are wrong; nothing was written.
        EngineError: the machine or the model failed; what was judged is kept.
        Interrupted: the user stopped the run; what was judged is kept.
    """
    options, progress = options or Options(), progress or SILENT
    paths, options, reason, hardware = settle(data, options, progress)
    multi_gpu.check(options.devices, hardware)
    # Before data are read, as it is quick to be wrong.
    chosen_metrics(load_rubric(options.language, options.rubric).scheme, options.metrics)
    with progress.busy("reading dialogues"):
        read = open_corpus(paths, options)
    with closing(read) as corpus:
        for warning in corpus.notes:
            progress.note(warning)
        judge = open_judge(options, open_model(options, hardware, progress), progress=progress)
        work = Work(corpus, judge, options, paths, progress)
        explainer = Explainer(work.judge) if options.rationales else None
        progress.note(f"judge {work.judge.name} ({reason}): {len(corpus):,} dialogues into {work.store.folder}")
        if not judge.writers[0].tokenizer.has_template:
            progress.note(f"{work.judge.name} has no chat template (a base model): it is asked in plain paragraphs")
        shared, pairs = corpus.shared()
        if shared < pairs:
            progress.note(
                f"only {shared:,} of {pairs:,} pairs of character and scenario are in every source: compare with care"
            )
        left_out = set(work.before["units"][JUDGMENTS]) - set(work.dialogue_batches) if work.before else set()
        if left_out:
            progress.note(
                f"{len(left_out):,} parts of earlier data in this run are kept, but not in its tables any more"
            )
        if on_judge:
            on_judge(work.judge)
        try:
            with stoppable() as stop:
                _complete(work, options, paths, hardware, reason, stop)
            with progress.busy("writing the tables"):
                result = _summarise(work)
            if explainer is None:
                return result
            with stoppable() as stop:
                explained = explain_run(explainer, work.store, corpus, options.rationales, progress, stop)
            return replace(result, explained=explained)
        except UnfitJudge:
            raise
        except EngineError as error:
            there, total = work.saved()
            saved = f"{there:,} of {total:,} judgments are saved in {work.store.folder}"
            raise EngineError(f"{error}; {saved}; fix that, then", can_go_on=True) from error


def look_ahead(
    data: Sequence[Path] = (), options: Options | None = None, progress: Progress | None = None
) -> Foresight:
    """What ``score`` would do with the same arguments, and what it would take; nothing is written.

    The model is loaded and timed on a few dialogues, where any are to do. Raises what ``score`` raises.
    """
    progress = progress or SILENT
    paths, options, _, hardware = settle(data, options or Options(), progress)
    multi_gpu.check(options.devices, hardware)
    with closing(open_corpus(paths, options)) as corpus:
        for warning in corpus.notes:
            progress.note(warning)
        judge = open_judge(options, open_model(options, hardware, progress), progress=progress)
        work = Work(corpus, judge, options, paths, progress)
        if options.rationales:
            Explainer(work.judge)  # refuses a judge that cannot give any
        return foresee(work, work.store.folder)


def score_share(data: Sequence[Path], options: Options, share: Share, progress: Progress) -> dict[str, Any] | None:
    """Judge one share of a run that another process began, and say how its engine did."""
    hardware = detect()
    require_usable(hardware)
    with closing(open_corpus(data, options)) as corpus:
        judge = open_judge(options, open_model(options, hardware))
        work = Work(corpus, judge, options, data, progress, share)
        with stoppable(quiet=True) as stop:
            work.complete(stop)
        return work.judge.engine.report if work.judge.is_loaded else None


def text_diversity(data: Sequence[Path] = (), mapping: str = "", progress: Progress | None = None) -> pd.DataFrame:
    """Response diversity from the text alone: ``diversity.csv`` without the judge's columns.

    Args:
        data: files or folders of dialogues; none for the packaged example.
        mapping: which columns are which fields, as for ``read_dialogues``.
        progress: is given warnings of how the files were read.
    """
    with closing(Corpus(list(data) or example_files(), mapping=mapping)) as corpus:
        for warning in corpus.notes:
            (progress or SILENT).note(warning)
        rows = [{"judge": "", **role_statistics(sample(corpus, role))} for role in corpus.roles()]
    table = diversity_table([pd.DataFrame(rows).assign(score=None, mass=None, error=None)], "rating")
    return table[["level", "source", "character", "dialogues", *STATISTICS]]


def _complete(
    work: Work, options: Options, data: Sequence[Path], hardware: Hardware, reason: str, stop: threading.Event
) -> None:
    """Judge and write every unit that is missing; ``stop`` ends the work after the unit in flight.

    ``reason`` is why it is this judge.

    EngineError also says how much is saved and how to go on.
    """
    store, progress = work.store, work.progress
    about = {
        "rubric": str(options.rubric) if options.rubric in packaged() else str(Path(options.rubric).resolve()),
        "metrics": work.asked,
        "data": {
            "paths": work.data,
            **({"map": options.mapping} if options.mapping else {}),
            "digest": work.corpus.digest,
            "dialogues": len(work.corpus),
            "batch_dialogues": work.corpus.batch_dialogues,
        },
        "sources": work.corpus.values("source"),
        "units": {JUDGMENTS: work.dialogue_batches, DIVERSITY: [name for name, _ in work.role_batches]},
    }
    store.tidy()
    run_folder.begin(store, work.judge, hardware, reason, about)
    # After the manifest, without which a folder with a file in it is not a run; before any part, which needs the texts.
    if warning := keep_dialogues(store.folder, work.corpus):
        progress.note(warning)
    started = time.monotonic()
    reports: list[dict[str, Any]] = []
    try:
        if options.devices and not work.is_done:
            work.judge.unload()
            progress.begin("judgments", *work.counts())
            reports = multi_gpu.complete(
                score_share,
                data,
                replace(options, run=store.folder, answer_form=work.judge.answer_form.name),
                progress,
                stop,
            )
        else:
            work.complete(stop)
    finally:
        reports += [work.judge.engine.report] if work.judge.is_loaded else []
        with suppress(EngineError):  # of a disk that failed the work above, or will fail the tables
            run_folder.note(store, reports, time.monotonic() - started)


def _summarise(work: Work) -> Result:
    """Write the tables from the parts, and the end of the story into the manifest."""
    store = work.store
    there, total = work.saved()
    if there < total:
        raise EngineError(f"{store.folder}: a part of the run was taken away meanwhile")
    counts: Counter[str] = Counter()  # rows by error, "" for none
    suspicious = 0

    def judged() -> Iterator[pd.DataFrame]:
        """The parts as they come and go, so that memory stays flat; counted on the way."""
        nonlocal suspicious
        for part in store.read_parts(JUDGMENTS, work.dialogue_batches):
            counts.update(part["error"].fillna("").tolist())
            suspicious += int(part.drop_duplicates(["source", "character", "scenario"])["suspicious"].notna().sum())
            yield part

    with store.replacing("scores.csv") as text:
        leaderboard = summarise(judged(), work.judge.scheme, work.metrics, text)
    rated = list(store.read_parts(DIVERSITY, [name for name, _ in work.role_batches]))
    for part in rated:
        counts.update(part["error"].fillna("").tolist())
    tables = {"leaderboard.csv": leaderboard}
    varied = None
    if work.judge.scheme.set_metric in work.asked:
        tables["diversity.csv"] = varied = diversity_table(rated, work.judge.scheme.set_metric)
    for name, table in tables.items():
        with store.replacing(name) as text:
            write_csv(table, text)
    counts.pop(TOO_FEW_ANSWERS, None)  # nothing to rate, so nothing is missing
    missing = dict(sorted((error, count) for error, count in counts.items() if error))
    judgments = counts.total()
    run_folder.finish(store, {"judgments": judgments, "missing": missing, "suspicious": suspicious})
    chosen = (store.manifest or {}).get("judge_chosen", AS_ASKED)
    return Result(store.folder, work.judge.name, judgments, missing, suspicious, leaderboard, varied, chosen)
