"""``make bench``: the same judgments by the packed engine, by vLLM and by peers, on the same models and one machine.

Peers take part on the first model only. Every contestant is a process in an environment of its own, started anew for
each repeat; repeats take turns. What comes out is written to ``results.json`` beside this file and as tables to
``docs/performance.md``; models that are left out keep what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine, model, table
from benchmarks.entries import ENTRIES, VLLM, Entry, entries
from benchmarks.runner import ROOT, missing, python_of, run_once
from benchmarks.server import Server
from benchmarks.task import Conversation, Guide, Job, one_line
from benchmarks.tokens import Requests
from judge.data.chatanime import chatanime_folder, is_complete
from judge.data.dataset import Corpus
from judge.data.dialogues import example_files
from judge.errors import JudgeError
from judge.prompting.rubric import load_rubric

DIALOGUES = 200
MAX_TOKENS = 8192
"""The longest prompt with its answer that vLLM is set up for."""
TRIED = [{"dtype": dtype, "block_size": size} for dtype in ("float32", "bfloat16") for size in (None, 32)]
"""vLLM's settings, of which the fastest is used."""
TRIED_ON = 20
"""Dialogues that they are tried on."""

SAME_PROMPTS = ("packed", "forked", "vllm")
"""Contestants whose scores must be those of separate calls."""

Result = dict[str, Any]
Scores = dict[tuple[int, int], float | None]


@dataclass(frozen=True, slots=True)
class Bench:
    """What all contestants share: the model, the dialogues, the rubric, where environments and files are."""

    model: Path
    dialogues: list[Conversation]
    guides: list[Guide]
    home: Path
    folder: Path

    def once(self, entry: Entry, vllm: dict[str, Any], server: Server | None = None) -> Result:
        """One repeat of a contestant."""
        job = Job(
            model=str(self.model),
            dialogues=list(entry.part(self.dialogues)),
            warm_up=[] if entry.mode == "defaults" else self.dialogues[-1:],
            metrics=list(self.guides[: entry.metrics]),
            server=server.url if server else "",
            settings={**vllm, "mode": entry.mode},
        )
        result = run_once(entry, job, self.home / entry.environment, self.folder, server)
        if "scores" in result:
            result["judgments"] = len(result["scores"])
            result["failed"] = sum(score is None for score in result["scores"])
            result |= Requests(self.model).counts(server.record) if server else {}
        if "error" in result:
            said = result["error"]
        else:
            counts = f"{result['judgments']} judgments, {result['failed']} failed"
            said = f"{counts}, {result['judgments'] / result['seconds']:.1f} a second, {result['peak_mb']} MB"
        print(f"  {entry.key}: {said}", flush=True)
        return result


def main() -> None:
    """The command."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    dialogues, data = _dialogues(options.data)
    guides = [
        Guide(metric.title, metric.definition, {str(level): text for level, text in metric.levels.items()})
        for metric in load_rubric().metrics.values()
    ]
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    for name in options.models:
        results[name] = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine.describe(),
            "versions": _versions(options.environments, name),
            "data": data,
            **_on_model(name, dialogues, guides, options),
        }
        options.out.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    page = options.page.read_text(encoding="utf-8") if options.page.is_file() else ""
    options.page.write_text(table.inserted(page, table.markdown(results)), encoding="utf-8")
    print(f"\n{table.markdown(results)}\n\nwritten to {options.out} and {options.page}")


def _on_model(
    name: str, dialogues: list[Conversation], guides: list[Guide], options: argparse.Namespace
) -> dict[str, Any]:
    """Everybody's figures on a model; ``error`` where the model is not to be had."""
    print(f"{name}:", flush=True)
    with tempfile.TemporaryDirectory(prefix="esrp-bench-") as temporary:
        folder = Path(temporary)
        (folder / "model").mkdir()
        try:
            built, parameters = model.build(name, folder / "model")
        except JudgeError as error:
            print(f"  {one_line(str(error))}", flush=True)
            return {"error": one_line(str(error))}
        bench = Bench(built, dialogues, guides, options.environments, folder)
        taking_part = [entry for entry in entries(name) if not options.only or entry.key in options.only]
        served = any(entry.environment == VLLM or entry.is_served for entry in taking_part)
        chosen, tried = _fastest_vllm(bench) if served else ({}, [])
        repeats = _rounds(bench, taking_part, chosen, options.repeats)
        return {
            "model": {"parameters": parameters, "is_random": name in model.RANDOM},
            "vllm": {"chosen": chosen, "tried": tried},
            "contestants": _figures(bench, taking_part, repeats),
        }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="dialogues; ChatAnime where it was fetched")
    parser.add_argument("--models", nargs="*", default=list(model.MODELS), choices=model.MODELS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], metavar="KEY", choices=[entry.key for entry in ENTRIES])
    parser.add_argument("--environments", type=Path, default=ROOT, help="the folder that holds .venv, .venv-vllm, …")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "performance.md")
    return parser.parse_args()


def _dialogues(paths: Sequence[Path]) -> tuple[list[Conversation], str]:
    """The dialogues, and what they are in words."""
    fetched = chatanime_folder()
    name = "dialogues of the data given"
    if not paths and is_complete(fetched):
        paths = [fetched]
    if not paths:
        paths, name = example_files(), "dialogues of the packaged example (ChatAnime was not fetched)"
    elif all((path / "human.json").is_file() and is_complete(path) for path in paths):
        name = "dialogues of ChatAnime"
    corpus = Corpus(paths, limit=DIALOGUES)
    found = [
        Conversation(d.source, d.character, d.scenario, [(turn.user, turn.character) for turn in d.turns])
        for d in corpus
    ]
    corpus.close()
    return found, f"{len(found)} {name}"


def _fastest_vllm(bench: Bench) -> tuple[dict[str, Any], list[Result]]:
    """The fastest of vLLM's settings, and how fast each was."""
    entry = next(entry for entry in ENTRIES if entry.key == "vllm")
    fewer = Bench(bench.model, bench.dialogues[:TRIED_ON], bench.guides, bench.home, bench.folder)
    print("vLLM's settings:", flush=True)
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB: room for what 200 dialogues have in common
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # by itself vLLM keeps one core for its server
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
    }
    settings = [{**setting, "max_model_len": MAX_TOKENS, "environment": environment} for setting in TRIED]
    tried = [{**setting, **_without_scores(fewer.once(entry, setting))} for setting in settings]
    rates = [one["judgments"] / one["seconds"] if "error" not in one else 0.0 for one in tried]
    return settings[rates.index(max(rates))], tried


def _rounds(bench: Bench, entries: Sequence[Entry], vllm: dict[str, Any], repeats: int) -> dict[str, list[Result]]:
    """All repeats by contestant: in each round every contestant has its turn, and another one begins.

    So a machine that slows down while it is warm does not slow the same contestant down each time.
    """
    results: dict[str, list[Result]] = {entry.key: [] for entry in entries}
    for number in range(repeats):
        print(f"round {number + 1} of {repeats}:", flush=True)
        due = [entry for entry in entries if number < entry.repeats]
        first = number % max(1, len(due))
        due = [*due[first:], *due[:first]]
        for entry in due:
            if not entry.is_served:
                results[entry.key].append(bench.once(entry, vllm))
        served = [entry for entry in due if entry.is_served]
        for entry, result in zip(served, _served(bench, served, vllm), strict=True):
            results[entry.key].append(result)
    return results


def _served(bench: Bench, entries: Sequence[Entry], vllm: dict[str, Any]) -> list[Result]:
    """A repeat of each peer, on one server."""
    problem = missing(bench.home / VLLM)
    if problem or not entries:
        return [{"error": f"no server: vLLM {problem}"} for _ in entries]
    try:
        with Server(python_of(bench.home / VLLM), bench.model, bench.folder, vllm) as server:
            return [bench.once(entry, vllm, server) for entry in entries]
    except RuntimeError as error:
        return [{"error": one_line(str(error))} for _ in entries]


def _figures(bench: Bench, entries: Sequence[Entry], repeats: dict[str, list[Result]]) -> list[table.Figures]:
    """Each contestant's figures; where the prompts are the same also how far its scores are from separate calls."""
    figures = []
    scores = {entry.key: _scores(entry, repeats[entry.key], len(bench.dialogues)) for entry in entries}
    plain = scores.get("plain", {})
    for entry in entries:
        found = table.summarise(asdict(entry), [_without_scores(repeat) for repeat in repeats[entry.key]])
        if entry.key in SAME_PROMPTS:
            own = scores[entry.key]
            pairs = [(plain[place], own[place]) for place in plain.keys() & own.keys()]
            apart = (abs(a - b) for a, b in pairs if a is not None and b is not None)
            found["difference"] = max(apart, default=None)
        figures.append(found)
    return figures


def _scores(entry: Entry, repeats: Sequence[Result], dialogues: int) -> Scores:
    """The scores of a contestant's last repeat, by number of dialogue and metric."""
    places = [(dialogue, metric) for dialogue in entry.part(range(dialogues)) for metric in range(entry.metrics)]
    found = [repeat["scores"] for repeat in repeats if "scores" in repeat]
    return dict(zip(places, found[-1], strict=True)) if found else {}


def _without_scores(result: Result) -> Result:
    return {name: value for name, value in result.items() if name != "scores"}


def _versions(home: Path, model: str) -> dict[str, str]:
    """The versions of everything compared on a model; the first where two environments have the same package."""
    found: dict[str, str] = {}
    for entry in entries(model):
        installed = machine.versions(home / entry.environment, entry.packages)
        found |= {name: version for name, version in installed.items() if name not in found}
    return found


if __name__ == "__main__":
    main()
