"""A run from data to tables: read, judge what is missing, write it, summarise. The same call again goes on.

What is judged and how it is cut into batches is for ``judge.scoring.worker``.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from judge.data.dataset import Corpus
from judge.data.dialogues import example_files
from judge.errors import EngineError, InputError, UnfitJudge
from judge.files import write_csv
from judge.models.hardware import Hardware, detect, require_usable
from judge.progress import SILENT, Progress, stoppable
from judge.prompting.rubric import load_rubric, packaged
from judge.remote import put
from judge.scoring import multi_gpu, ray_cluster, run_folder
from judge.scoring.judge import Judge
from judge.scoring.multi_gpu import WHOLE, Share, share_of
from judge.scoring.parts import DIALOGUES, DIVERSITY, JUDGMENTS, keep_dialogues
from judge.scoring.preview import Foresight, foresee
from judge.scoring.rationales import Explainer, explain_run
from judge.scoring.ray_cluster import Cluster, connected
from judge.scoring.run_folder import Store
from judge.scoring.setup import open_corpus, open_judge, open_model, settle
from judge.scoring.summary import STATISTICS, diversity_table, summarise
from judge.scoring.worker import Work, chosen_metrics, role_statistics, sample
from judge.types import AS_ASKED, TOO_FEW_ANSWERS, Options


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run: its folder, judge, how many judgments it holds, how many are missing by reason, and tables.

    ``chosen`` says why it was this judge, at the run's beginning.
    ``suspicious`` counts dialogues with text that speaks to the judge (``judge.scoring.injection_detector``).
    ``unlisted`` counts judgments in which a level was not among the likely tokens that a server lists.
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
    unlisted: int = 0


@dataclass(frozen=True, slots=True)
class Shard:
    """One share of a run after it was judged: which (``2/3``), and its own judgments, counted as in ``Result``."""

    run: Path
    judge: str
    shard: str
    judgments: int
    missing: dict[str, int]


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
        options: what to score and how; ``shard`` is for ``score_shard``.
        progress: who is told how far it is.
        on_judge: is given the judge before anything is scored, and may refuse it by an error.

    Raises:
        InputError: data, options or the run folder are wrong; nothing was written.
        EngineError: the machine or the model failed; what was judged is kept.
        Interrupted: the user stopped the run; what was judged is kept.
    """
    options, progress = options or Options(), progress or SILENT
    with _session(data, options, WHOLE, progress) as session:
        explainer = Explainer(session.work.judge) if options.rationales else None
        if on_judge:
            on_judge(session.work.judge)
        with stoppable() as stop:
            _complete(session, stop)
        with progress.busy("writing the tables"):
            result = write_tables(session.work.store.folder)
        if explainer is None:
            return result
        with stoppable() as stop:
            explained = explain_run(
                explainer, session.work.store, session.work.corpus, options.rationales, progress, stop
            )
        return replace(result, explained=explained)


def score_shard(data: Sequence[Path], options: Options, progress: Progress | None = None) -> Shard:
    """Score one share of a run, which is ``options.shard``; other processes, on any machine, score the others.

    All of them are given the same data, options and folder, in any order and at any time. ``write_tables`` then ends
    the run. Arguments and errors are those of ``score``; a share has no tables of its own.
    """
    progress = progress or SILENT
    with _session(data, options, share_of(options.shard), progress) as session:
        with stoppable() as stop:
            _complete(session, stop)
        work = session.work
        names = {JUDGMENTS: work.dialogue_batches, DIVERSITY: [name for name, _ in work.role_batches]}
        errors = Counter[str]()
        for kind, own in names.items():
            for part in work.store.read_parts(kind, own):
                errors.update(part["error"].fillna(""))
        return Shard(work.store.folder, work.judge.name, str(work.share), errors.total(), _missing(errors))


def look_ahead(
    data: Sequence[Path] = (), options: Options | None = None, progress: Progress | None = None
) -> Foresight:
    """What ``score`` would do with the same arguments, and what it would take; nothing is written.

    The model is loaded and timed on a few dialogues, where any are to do. Raises what ``score`` raises.
    """
    options, progress = options or Options(), progress or SILENT
    if options.ray:
        raise InputError("--dry-run times the judge on this machine; leave out --ray")
    paths, options, _, hardware = settle(data, options, progress)
    multi_gpu.check(options.devices, hardware)
    with closing(open_corpus(paths, options)) as corpus:
        for warning in corpus.notes:
            progress.note(warning)
        judge = open_judge(options, open_model(options, hardware, progress), progress=progress)
        work = Work(corpus, judge, options, paths, progress, share_of(options.shard) if options.shard else WHOLE)
        work.judge.refuse_letters(corpus)
        if options.rationales:
            Explainer(work.judge)  # refuses a judge that cannot give any
        return foresee(work, work.store.folder)


def _judge_share(data: Sequence[Path], options: Options, share: Share, progress: Progress) -> dict[str, Any] | None:
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


@dataclass(frozen=True, slots=True)
class _Session:
    """What one process knows of the run that it works on; ``reason`` is why it is this judge."""

    work: Work
    options: Options
    paths: list[Path]
    hardware: Hardware
    reason: str
    cluster: Cluster | None


@contextmanager
def _session(data: Sequence[Path], options: Options, share: Share, progress: Progress) -> Iterator[_Session]:
    """Read the data, open the judge and the run's folder, and tell the user what is to be known of them.

    An EngineError in the block then also says how much is saved and how to go on.
    """
    with ExitStack() as stack:
        cluster = None
        if options.ray:
            with progress.busy("looking at the Ray cluster"):
                cluster = stack.enter_context(connected(options))
        paths, options, reason, hardware = settle(data, options, progress, cluster.hardware if cluster else None)
        multi_gpu.check(options.devices, hardware)
        # Before data are read, as it is quick to be wrong.
        chosen_metrics(load_rubric(options.language, options.rubric).scheme, options.metrics)
        with progress.busy("reading dialogues"):
            corpus = stack.enter_context(closing(open_corpus(paths, options)))
        for warning in corpus.notes:
            progress.note(warning)
        model = open_model(options, hardware, progress)
        judge = open_judge(options, model, progress=progress, form=cluster.answer_form(options) if cluster else None)
        work = Work(corpus, judge, options, paths, progress, share)
        if cluster:
            cluster.check_folder(work.store.folder)
        progress.note(f"judge {work.judge.name} ({reason}): {len(corpus):,} dialogues into {work.store}")
        if not judge.writers[0].tokenizer.has_template:
            progress.note(f"{work.judge.name} has no chat template (a base model): it is asked in plain paragraphs")
        shared, pairs = corpus.shared()
        if shared < pairs:
            progress.note(
                f"only {shared:,} of {pairs:,} pairs of character and scenario are in every source: compare with care"
            )
        left_out = set(work.before["units"][JUDGMENTS]) - set(work.units[JUDGMENTS]) if work.before else set()
        if left_out:
            progress.note(
                f"{len(left_out):,} parts of earlier data in this run are kept, but not in its tables any more"
            )
        try:
            yield _Session(work, options, paths, hardware, reason, cluster)
        except UnfitJudge:
            raise
        except EngineError as error:
            there, total = work.saved()
            saved = f"{there:,} of {total:,} judgments are saved in {work.store}"
            raise EngineError(f"{error}; {saved}; fix that, then", can_go_on=True) from error


def _complete(session: _Session, stop: threading.Event) -> None:
    """Judge and write every batch of the session's share that is missing; ``stop`` ends the work after the batch."""
    work, options = session.work, session.options
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
        "units": work.units,
    }
    if work.share != WHOLE and work.before and work.before["data"].get("digest") != work.corpus.digest:
        progress.note(f"until now {store} was a run of other data; all shards must be given the same")
    work.judge.refuse_letters(work.corpus)
    store.tidy()
    run_folder.begin(store, work.judge, session.hardware, session.reason, about, work.share != WHOLE)
    # After the manifest, without which a folder with a file in it is not a run; before any part, which needs the texts.
    if warning := keep_dialogues(store.folder, work.corpus):
        progress.note(warning)
    put(store.folder, store.folder / DIALOGUES)
    started = time.monotonic()
    reports: list[dict[str, Any]] = []
    try:
        if session.cluster and not work.is_done:
            reports = ray_cluster.complete(work, options, session.cluster, stop)
        elif options.devices and not work.is_done:
            work.judge.unload()
            progress.begin("judgments", *work.counts())
            options = replace(options, run=store.folder, answer_form=work.judge.answer_form.name)
            reports = multi_gpu.complete(_judge_share, session.paths, options, work.share, progress, stop)
        else:
            work.complete(stop)
    finally:
        reports += [work.judge.engine.report] if work.judge.is_loaded else []
        seconds = time.monotonic() - started
        with suppress(EngineError):  # of a disk that failed the work above, or will fail the tables
            if work.share == WHOLE:
                run_folder.note(store, reports, seconds)
            else:
                run_folder.note_share(store, str(work.share), reports, seconds, session.hardware)


def write_tables(run: Path) -> Result:
    """Write the tables of a run from its parts, and the end of the story into its manifest.

    It needs neither data nor judge: so it can be called where the model is not.

    Raises:
        InputError: there is no such run.
        EngineError: a part is missing, or a file cannot be written.
    """
    manifest, store = run_folder.read_manifest(run), Store(run)
    scheme, units = run_folder.scheme_of(manifest), manifest["units"]
    if absent := store.absent(units):
        total = sum(map(len, units.values()))
        raise EngineError(
            f"{store}: {absent:,} of {total:,} parts are not there; score what is missing first "
            "(every shard, or the same command without --shard)"
        )
    counts: Counter[str] = Counter()  # rows by error, "" for none
    suspicious = unlisted = 0

    def counted(kind: str) -> Iterator[pd.DataFrame]:
        """The parts of a kind as they come and go, so that memory stays flat; counted on the way."""
        nonlocal unlisted
        for part in store.read_parts(kind, units[kind]):
            counts.update(part["error"].fillna(""))
            unlisted += int((part.filter(regex=r"^p\d+$") == 0).any(axis=1).sum())
            yield part

    def judged() -> Iterator[pd.DataFrame]:
        """Those of judgments."""
        nonlocal suspicious
        for part in counted(JUDGMENTS):
            suspicious += int(part.drop_duplicates(["source", "character", "scenario"])["suspicious"].notna().sum())
            yield part

    asked = manifest["metrics"]
    with store.replacing("scores.csv") as text:
        metrics = tuple(metric for metric in asked if metric != scheme.set_metric)
        leaderboard = summarise(judged(), scheme, metrics, text)
    rated = list(counted(DIVERSITY))
    tables = {"leaderboard.csv": leaderboard}
    varied = None
    if scheme.set_metric and scheme.set_metric in asked:
        tables["diversity.csv"] = varied = diversity_table(rated, scheme.set_metric)
    for name, table in tables.items():
        with store.replacing(name) as text:
            write_csv(table, text)
    missing = _missing(counts)
    judgments = counts.total() - counts[TOO_FEW_ANSWERS]  # nothing to rate, so nothing is missing
    if run_folder.lists_all(store):  # else a probability of 0 is a very small one
        unlisted = 0
    store.remove_other_answers(units)
    found = {"judgments": judgments, "missing": missing, "suspicious": suspicious, "unlisted": unlisted}
    run_folder.finish(store, found)
    name, chosen = manifest["judge"]["name"], manifest.get("judge_chosen", AS_ASKED)
    return Result(run, name, judgments, missing, suspicious, leaderboard, varied, chosen, unlisted=unlisted)


def _missing(errors: Counter[str]) -> dict[str, int]:
    """How many judgments are missing, by reason; a role with too few answers has nothing to rate."""
    return {error: errors[error] for error in sorted(errors) if error not in ("", TOO_FEW_ANSWERS)}
