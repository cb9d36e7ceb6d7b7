"""What runs on the nodes of a Ray cluster: workers that judge chunks of batches, and the ledger of what they began.

Ray tries for ever what a lost worker had in work, and a batch that kills every engine would keep it busy for ever. So
the ledger counts the workers that began a batch and did not end it. A batch that two of them began becomes missing
judgments, if a third worker's engine still answers on the example; a judge that no worker can load ends the run.
"""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from judge.data.dialogues import example_dialogues
from judge.errors import EngineError, InputError, JudgeError, UnfitJudge, one_line
from judge.models.hardware import detect
from judge.remote import address_of, write
from judge.scoring.judge import Judge, Judged
from judge.scoring.parts import DIALOGUES, JUDGMENTS, dialogues_between, part_content, part_name
from judge.scoring.run_folder import Store
from judge.scoring.setup import open_judge, open_model
from judge.scoring.summary import sample_answers
from judge.scoring.worker import dialogue_rows, role_rows, was_asked
from judge.types import ENGINE_FAILED, Dialogue, Judgment, Options

TRIES = 2
"""Workers that may be lost on a batch before its judgments count as missing."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Batches of one kind that a worker does together, by the names of their parts.

    ``places`` has for each batch of dialogues where it begins and ends among the run's dialogues; ``samples`` has for
    each batch of response diversity the dialogues of each of its roles.
    """

    kind: str
    names: tuple[str, ...]
    places: tuple[tuple[int, int], ...] = ()
    samples: tuple[list[list[Dialogue]], ...] = ()

    def judgments(self, metrics: int) -> int:
        """How many there are, on so many metrics of a dialogue."""
        return sum(stop - start for start, stop in self.places) * metrics + sum(map(len, self.samples))


@dataclass(frozen=True, slots=True)
class Done:
    """What a worker says of a chunk of a kind: an error that ends the run, or what was judged.

    ``judgments`` are those of the whole chunk. ``tokens`` and the label masses are of what was judged now, and not of
    what a lost worker had written before. ``engine`` is its report (``Engine.report``), ``notes`` are sentences for the
    user.
    """

    worker: str
    kind: str
    failed: JudgeError | None = None
    judgments: int = 0
    tokens: int = 0
    masses: tuple[float | None, ...] = ()
    notes: tuple[str, ...] = ()
    engine: dict[str, Any] | None = None


class Ledger:
    """What workers began and ended, by name; an actor that all of them ask."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._ended: set[str] = set()
        self._why: dict[str, str] = {}

    def tries(self, names: Sequence[str]) -> list[int | None]:
        """How many workers began each; None for what was ended."""
        return [None if name in self._ended else self._begun[name] for name in names]

    def begin(self, names: Sequence[str]) -> None:
        """A worker begins them, of which it may have ended some before."""
        self._begun.update(names)
        self._ended.difference_update(names)

    def fail(self, names: Sequence[str], why: str) -> None:
        """A worker ends itself over them."""
        self._why |= dict.fromkeys(names, why)

    def end(self, names: Sequence[str]) -> None:
        """They are done; should they be begun once more, the count is from there."""
        self._ended.update(names)
        for name in names:
            del self._begun[name]

    def why(self, name: str) -> str:
        """What the last worker said that failed on it; one that was killed could say nothing."""
        return self._why.get(name, "the workers were lost")


class Worker:
    """Judges chunks by an engine of its own; an actor that Ray makes, and makes anew where it is lost.

    Nothing is done before the first chunk: Ray would try for ever to make a worker that fails when it is made.

    Args:
        options: how to judge.
        run: the folder, or the address, of the run; it is the same on every node.
        name, judge_id: of the judge that the run is of.
        metrics: of a dialogue.
        ledger: the handle of the ``Ledger``.
    """

    def __init__(
        self, options: Options, run: str, name: str, judge_id: str, metrics: tuple[str, ...], ledger: Any
    ) -> None:
        import ray

        self._run = run
        self._options, self._name, self._judge_id, self._metrics = options, name, judge_id, metrics
        self._ledger = ledger
        self._id = str(ray.get_runtime_context().get_actor_id())  # stays the same where Ray makes it anew
        self._judge: Judge | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, list[bytes]]:
        """Judge the chunk of a row of Ray Data and write its parts; a ``Done``, also where it fails."""
        chunk: Chunk = pickle.loads(row["chunk"][0])
        try:
            done = self._complete(chunk)
        except JudgeError as error:
            done = Done(self._id, chunk.kind, error)
        except Exception as error:
            failed = EngineError(f"a worker failed: {type(error).__name__}: {one_line(error)}")
            done = Done(self._id, chunk.kind, failed)
        return {"done": [pickle.dumps(done)]}

    def _complete(self, chunk: Chunk) -> Done:
        """Judge and write those batches of a chunk that no lost worker has written."""
        judge = self._opened()
        tries = self._ask("tries", chunk.names)
        # What a worker was lost on is tried by itself, so that nothing else is lost with it. The others are judged as
        # many together as on one machine, since the last bits of a score depend on what is judged beside it.
        fresh = [i for i, count in enumerate(tries) if count == 0]
        together = max(1, judge.engine.window // max((stop - start for start, stop in chunk.places), default=1))
        groups = [fresh[first : first + together] for first in range(0, len(fresh), together)]
        groups += [[i] for i, count in enumerate(tries) if count]
        tokens, masses, notes = 0, list[float | None](), list[str]()
        for group in groups:
            names = [chunk.names[i] for i in group]
            gives_up = (tries[group[0]] or 0) >= TRIES
            if gives_up:
                # Raises where it is the engine that is at fault, and not the batch.
                judge.judge(judge.prompts(example_dialogues()[:1], self._metrics), self._metrics)
                why = self._ask("why", names[0])
                notes.append(f"a batch was given up after {TRIES} workers ({why}); the same command tries it again")
            self._ask("begin", names)
            with self._ending_over(names):
                found = self._judged(judge, chunk, group, gives_up)
            for name, rows in zip(names, found, strict=True):
                self._write(chunk.kind, name, rows)
                tokens += sum(row.get("prompt_tokens") or 0 for row in rows)
                masses += [row["mass"] for row in rows if was_asked(row["error"])]
            self._ask("end", names)
        judgments = chunk.judgments(len(self._metrics))
        return Done(self._id, chunk.kind, None, judgments, tokens, tuple(masses), tuple(notes), judge.engine.report)

    def _opened(self) -> Judge:
        """The judge with its engine loaded; an error is the machine's or the user's, and no batch's."""
        if self._judge is None:
            loading = f"loading by {self._id}"
            if (self._ask("tries", [loading])[0] or 0) > TRIES:
                raise EngineError("workers are lost while they load the judge; is there memory for it on every node?")
            self._ask("begin", [loading])
            judge = open_judge(self._options, open_model(self._options, detect())).named(self._name)
            if judge.identity.judge_id != self._judge_id:
                raise InputError(
                    f"a worker finds another judge than the driver ({judge.model.place}, {judge.model.dtype}); have "
                    "the same files and the same kind of hardware on all nodes"
                )
            _ = judge.engine
            self._judge = judge
            self._ask("end", [loading])
        return self._judge

    def _judged(self, judge: Judge, chunk: Chunk, group: Sequence[int], gives_up: bool) -> list[list[dict[str, Any]]]:
        """The rows of the parts of some batches of a chunk; all judgments are missing where it ``gives_up``."""
        missing = Judgment(None, None, ENGINE_FAILED)
        if chunk.kind == JUDGMENTS:
            file = f"{self._run}/{DIALOGUES}"
            batches = [list(dialogues_between(file, *chunk.places[i])) for i in group]
            dialogues = [dialogue for batch in batches for dialogue in batch]
            if gives_up:
                found = iter([Judged((missing,) * len(self._metrics), (0,) * len(self._metrics))] * len(dialogues))
            else:
                found = iter(judge.judge(judge.prompts(dialogues, self._metrics), self._metrics))
            return [dialogue_rows(judge, self._metrics, batch, found) for batch in batches]
        written = []
        for samples in (chunk.samples[i] for i in group):
            answers = list(map(sample_answers, samples))
            written.append(
                role_rows(judge, samples, [missing] * len(answers) if gives_up else judge.judge_answers(answers))
            )
        return written

    def _write(self, kind: str, name: str, rows: list[dict[str, Any]]) -> None:
        """Write the part of a batch."""
        if address_of(self._run):
            write(f"{self._run}/{part_name(kind, name)}", part_content(kind, rows))
        else:
            Store(Path(self._run)).write_part(kind, name, rows)

    @contextmanager
    def _ending_over(self, names: Sequence[str]) -> Iterator[None]:
        """End this process where its engine fails on some batches; Ray makes another, with an engine that is whole."""
        try:
            yield
        except UnfitJudge:
            raise
        except EngineError as error:
            self._ask("fail", names, str(error))
            os._exit(1)

    def _ask(self, what: str, *words: Any) -> Any:
        """What the ledger says."""
        import ray

        return ray.get(getattr(self._ledger, what).remote(*words))
