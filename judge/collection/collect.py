"""From a model to its dialogues: every scenario is played, reply by reply, and the same call again goes on.

A scenario is a chain: the user's question, the model's reply, what the user says to that, the next reply. Chains go on
at the same time, and each reply is kept before the next is asked for.
"""

from __future__ import annotations

import asyncio
import json
import platform
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from judge.collection.role_prompt import Message, RolePrompt, load_role_prompt
from judge.collection.scenarios import YAML, Scene, Scenes, choose, default_files, read_scenes
from judge.collection.speakers import LocalSpeaker, ServedSpeaker, Speaker
from judge.collection.store import CHARACTER, USER, ReplyStore, Said
from judge.data.fields import Wrong, name_of
from judge.engines import PATIENCE_S, Failure, Sampling
from judge.engines.chat_server import CONTENT_FILTER, find_chat_server
from judge.engines.in_process import engine_loader, engine_name
from judge.engines.patient_client import Pace, paced
from judge.engines.served_model import API_KEY, address
from judge.errors import EngineError, InputError, Interrupted, discreet
from judge.files import replacing
from judge.models.checkpoint import resolve
from judge.models.hardware import detect, require_usable
from judge.progress import SILENT, Progress, stoppable
from judge.types import EMPTY_ANSWER, Turn, digest

DIALOGUES, MANIFEST = "dialogues.json", "manifest.json"
"""The files of a collection beside its replies."""


USER_API_KEY = "ESRP_USER_API_KEY"
"""The environment variable with the key of the simulated user's server, where that is another server."""


ONLY_THOUGHTS = "only_thoughts"
"""The reason of a reply that is cut before its thoughts end."""


TRIES = 3
"""How often an empty reply is asked for, each time with another seed."""


FOLLOW_UPS = ("simulated", "recorded")
"""Where the user's later questions are from."""


CUT = "length"
"""Why a reply ended that is cut at the most tokens."""


@dataclass(frozen=True, slots=True)
class CollectOptions:
    """What to collect and how; each field is the command's option of the same name.

    ``model`` is a server's name for it where there is a ``url``, otherwise as for a judge. ``user_model`` is on
    ``user_url`` or, without it, where the model is; without both the model speaks for the simulated user too.
    ``out`` is made of the model's name and all that a reply depends on, where it is not given.

    Raises:
        InputError: a value that cannot be.
    """

    model: str = "auto"
    url: str | None = None
    user_model: str | None = None
    user_url: str | None = None
    out: Path | None = None
    source: str | None = None
    prompts: Path | None = None
    language: str | None = None
    rounds: int = 2
    follow_up: str = "simulated"
    characters: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    limit: int | None = None
    mapping: str = ""
    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int = 0
    engine: str = "auto"
    concurrency: int | None = None
    patience: float = PATIENCE_S

    def __post_init__(self) -> None:
        if self.follow_up not in FOLLOW_UPS:
            raise InputError(f"--follow-up {self.follow_up}: choose one of {', '.join(FOLLOW_UPS)}")
        if self.rounds < 1:
            raise InputError(f"--rounds {self.rounds}: must be at least 1")
        if not 0 <= self.temperature <= 2 or not 0 < self.top_p <= 1:
            raise InputError("--temperature must be from 0 to 2, and --top-p above 0 and at most 1")
        if self.max_tokens < 1 or self.patience < 0:
            raise InputError("--max-tokens must be at least 1, and --patience not negative")
        if self.concurrency is not None and (self.concurrency < 1 or not self.url):
            raise InputError("--concurrency says how many dialogues a server is asked about: at least 1, with --url")
        if self.engine not in ("auto", "packed", "vllm") or (self.url and self.engine != "auto"):
            raise InputError(f"--engine {self.engine}: auto, packed or vllm, and only without --url")
        if self.model == "auto" and not self.url:
            raise InputError(
                "no model is named; give --url, the address of its server, or --model, a folder, a Hub id, a preset, a "
                ".gguf file or stand-in"
            )
        if (self.user_url or self.user_model) and self.follow_up == "recorded":
            raise InputError("--follow-up recorded takes no simulated user; leave --user-url and --user-model out")


@dataclass(frozen=True, slots=True)
class Collected:
    """A finished collection: its folder and system, and how many dialogues and replies there are.

    ``file`` has the dialogues, None where there are none. ``tokens`` are those that were written, of replies whose
    number is known. ``retries`` are further tries of requests, ``cut`` the replies that end at the most tokens.
    ``missing`` counts by reason the dialogues that lack a reply, ``details`` has for a reason what a server said, where
    it said something. ``compared`` are the files of dialogues that the
    scenarios are from.
    """

    folder: Path
    source: str
    file: Path | None
    dialogues: int
    wanted: int
    replies: int
    user_replies: int
    tokens: int
    retries: int
    cut: int
    missing: dict[str, int]
    details: dict[str, str]
    compared: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class CollectionPlan:
    """What a collection would ask: dialogues, replies of the model and of the simulated user, and the first prompt."""

    dialogues: int
    characters: int
    replies: int
    user_replies: int
    fewer: int
    first: tuple[Message, ...]


def plan_collection(origin: Sequence[Path] = (), options: CollectOptions | None = None) -> CollectionPlan:
    """What ``collect`` would ask from scratch with the same arguments; nothing is asked, loaded or written."""
    options = options or CollectOptions()
    _, scenes = _scenes(origin, options)
    prompt = load_role_prompt(options.prompts, options.language)
    rounds = [_rounds(scene, options) for scene in scenes.scenes]
    first = scenes.scenes[0]
    users = sum(rounds) - len(rounds) if options.follow_up == "simulated" else 0
    return CollectionPlan(
        len(rounds),
        len({scene.character for scene in scenes.scenes}),
        sum(rounds),
        users,
        sum(number < options.rounds for number in rounds),
        prompt.for_character(first.character, first.profile, [Turn(first.question, None)]),
    )


def collect(
    origin: Sequence[Path] = (), options: CollectOptions | None = None, progress: Progress = SILENT
) -> Collected:
    """Have a model play characters in scenarios, and write its dialogues; the same call again goes on.

    Args:
        origin: dialogues that characters and scenarios are taken from, or a YAML file of them; none for ChatAnime where
            it was fetched and the model is real, otherwise for the packaged example.
        options: what to collect and how.
        progress: who is told how far it is.

    Raises:
        InputError: scenarios, prompts, options or the folder are wrong, or the server refuses the key.
        EngineError: the machine, the model or its server failed; every reply so far is kept.
        Interrupted: the user stopped it; every reply so far is kept.
    """
    options = options or CollectOptions()
    prompt = load_role_prompt(options.prompts, options.language)
    with progress.busy("reading scenarios"):
        paths, chosen = _scenes(origin, options)
    for note in chosen.notes:
        progress.note(note)
    scenes = chosen.scenes
    with progress.busy("opening the model"):
        speaker, user = _speakers(options)
    try:
        source = name_of(options.source or speaker.name.rpartition("/")[2], "source")
    except Wrong as wrong:
        raise InputError(f"--source: {wrong}") from wrong
    if source in chosen.sources:
        raise InputError(f"a system {source} is in the data already; name this one otherwise by --source")
    settings = _settings(options, prompt, speaker, user)
    default = f"{source[:40].lower()}-{digest([settings, [str(path.resolve()) for path in paths]], 8)}"
    folder = options.out or Path("results") / f"collected-{default}"
    with closing(ReplyStore(folder, settings, scenes)) as store:
        progress.note(f"{speaker.name} plays {len(scenes):,} dialogues into {folder}")
        fewer = sum(_rounds(scene, options) < options.rounds for scene in scenes)
        if fewer:
            progress.note(
                f"{fewer:,} of them have fewer than {options.rounds} recorded rounds, and get as many as these"
            )
        started = time.monotonic()
        _complete(_Collection(options, prompt, speaker, user, store, progress), scenes)
        result = _written(options, store, scenes, source, paths, (speaker, user))
        about = {
            "source": source,
            "settings": settings,
            "rounds": options.rounds,
            "follow_up": options.follow_up,
            "prompts": asdict(prompt),
            "scenarios": {"paths": [str(path) for path in paths], "digest": digest([one.digest for one in scenes])},
            "model": {**speaker.identity, **speaker.report},
            "user": None if user is None else {**user.identity, **user.report},
            "dialogues": result.dialogues,
            "wanted": result.wanted,
            "missing": result.missing,
            "details": result.details,
            "replies": result.replies,
            "cut": result.cut,
            "seconds": round(time.monotonic() - started, 1),
            "command": discreet(" ".join(sys.argv)),
            "versions": {"esrp-judge": version("esrp-judge"), "python": platform.python_version()},
        }
        with replacing(folder / MANIFEST) as file:
            file.write(json.dumps(about, ensure_ascii=False, indent=2).encode() + b"\n")
    return result


def seed_of(seed: int, scene: Scene, number: int, speaker: str, attempt: int = 0) -> int:
    """The seed of one reply, from 0 to 2³¹ − 1: the same whatever was asked before or at the same time.

    Args:
        seed: the collection's.
        scene: who is played in which scenario.
        number: of the round, from 1.
        speaker: ``character`` or ``user``.
        attempt: which try this is, where earlier ones gave an empty reply.
    """
    return int(digest([seed, scene.character, scene.scenario, number, speaker, attempt], 8), 16) % 2**31


@dataclass(frozen=True, slots=True)
class _Collection:
    """What every reply needs."""

    options: CollectOptions
    prompt: RolePrompt
    speaker: Speaker
    user: Speaker | None
    store: ReplyStore
    progress: Progress

    async def play(self, stop: threading.Event, scene: Scene) -> None:
        """Play a scenario until it is done, a reply fails or the user stops it."""
        turns: list[Turn] = []
        for number in range(1, _rounds(scene, self.options) + 1):
            if number == 1:
                question: str | None = scene.question
            elif self.user is None:
                question = scene.follow_ups[number - 2]
            else:
                asked = self.prompt.for_user(scene.character, turns)
                question = await self._said(stop, scene, number, USER, self.user, asked)
            if question is None:
                return
            asked = self.prompt.for_character(scene.character, scene.profile, [*turns, Turn(question, None)])
            reply = await self._said(stop, scene, number, CHARACTER, self.speaker, asked)
            if reply is None:
                return
            turns.append(Turn(question, reply))

    async def _said(
        self, stop: threading.Event, scene: Scene, number: int, who: str, speaker: Speaker, asked: Sequence[Message]
    ) -> str | None:
        """What somebody says in a round, as it is kept or asked for now; None where there is nothing."""
        if kept := self.store.get(scene, number, who):
            return kept.text
        options, reason, detail, attempt = self.options, EMPTY_ANSWER, "", 0
        while attempt < TRIES:
            if stop.is_set():
                return None
            seed = seed_of(options.seed, scene, number, who, attempt)
            found = await speaker.say(asked, Sampling(options.temperature, options.top_p, seed), options.max_tokens)
            if isinstance(found, Failure):
                reason, detail = found.reason, found.detail
                break
            if found.finish == CONTENT_FILTER:
                reason = CONTENT_FILTER
                break
            attempt += 1
            # Half a character, which JSON can spell and no file of text can hold.
            text = found.text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
            if text:
                said = Said(text, found.finish, found.prompt_tokens, found.tokens, attempt, seed)
                self.store.keep(scene, number, who, said)
                self.progress.advance(1, found.prompt_tokens or 0)
                return text
            reason = ONLY_THOUGHTS if found.has_thought else EMPTY_ANSWER
        self.store.fail(scene, number, who, reason, detail)
        return None


def _complete(collection: _Collection, scenes: Sequence[Scene]) -> None:
    """Ask for every reply that is missing; EngineError and Interrupted say where the others are."""
    store, speakers = collection.store, [collection.speaker, *([collection.user] if collection.user else [])]
    total = sum(_rounds(scene, collection.options) for scene in scenes) * len(speakers)
    total -= len(scenes) if collection.user else 0  # the first question is the scenario's
    kept = {key for key, _ in store.replies()}
    done = sum(
        (scene.character, scene.scenario, number, who) in kept
        for scene in scenes
        for number in range(1, _rounds(scene, collection.options) + 1)
        for who in (CHARACTER, USER)
    )
    collection.progress.begin("replies", total, done, "replies")
    if done == total:
        return

    async def everything(stop: threading.Event) -> None:
        async with AsyncExitStack() as stack:
            for speaker in dict.fromkeys(speakers):
                await stack.enter_async_context(speaker.opened())
            await paced([partial(collection.play, stop, scene) for scene in scenes], collection.speaker.pace)

    try:
        with stoppable() as stop:
            asyncio.run(everything(stop))
    except EngineError as error:
        if error.can_go_on:
            raise
        raise EngineError(
            f"{error}; every reply so far is in {store.folder}; fix that, then", can_go_on=True
        ) from error
    if stop.is_set():
        raise Interrupted(f"stopped; every reply so far is in {store.folder};", can_go_on=True)


def _written(
    options: CollectOptions,
    store: ReplyStore,
    scenes: Sequence[Scene],
    source: str,
    paths: Sequence[Path],
    speakers: tuple[Speaker, Speaker | None],
) -> Collected:
    """Write the dialogues that have every reply, and count."""
    said = dict(store.replies())
    found: dict[str, list[dict[str, Any]]] = {}
    used: list[tuple[str, Said]] = []
    for scene in scenes:
        row: dict[str, Any] = {"dialog_id": _as_number(scene.scenario), "source": source}
        mine: list[tuple[str, Said]] = []
        for number in range(1, _rounds(scene, options) + 1):
            key = (scene.character, scene.scenario, number)
            recorded = (scene.question, *scene.follow_ups)
            question: str | None = recorded[number - 1] if number == 1 or options.follow_up == "recorded" else None
            if question is None and (asked := said.get((*key, USER))):
                mine.append((USER, asked))
                question = asked.text
            reply = said.get((*key, CHARACTER))
            if question is None or reply is None:
                break
            mine.append((CHARACTER, reply))
            row |= {f"question_r{number}": question, f"answer_r{number}": reply.text}
        else:
            if scene.profile is not None:
                row["profile"] = scene.profile
            found.setdefault(scene.character, []).append(row)
            used += mine
    file = store.folder / DIALOGUES
    if found:
        with replacing(file) as out:
            out.write(json.dumps(found, ensure_ascii=False, indent=2).encode() + b"\n")
    there = sum(map(len, found.values()))
    failures = store.failures(scenes) if there < len(scenes) else []
    return Collected(
        folder=store.folder,
        source=source,
        file=file if found else None,
        dialogues=there,
        wanted=len(scenes),
        replies=sum(who == CHARACTER for who, _ in used),
        user_replies=sum(who == USER for who, _ in used),
        tokens=sum(one.tokens or 0 for _, one in used),
        retries=sum(one.tries - 1 for one in said.values())
        + sum(speaker.report.get("retries", 0) for speaker in dict.fromkeys(speakers) if speaker),
        cut=sum(one.finish == CUT for _, one in used),
        missing=dict(sorted(Counter(reason for reason, _ in failures).items())),
        details={reason: detail for reason, detail in failures if detail},
        compared=() if any(path.suffix.lower() in YAML for path in paths) else tuple(paths),
    )


def _rounds(scene: Scene, options: CollectOptions) -> int:
    """How many rounds a scenario has: as many as are asked for, or as are recorded."""
    return min(options.rounds, 1 + len(scene.follow_ups)) if options.follow_up == "recorded" else options.rounds


def _as_number(scenario: str) -> int | str:
    """A scenario as ChatAnime writes it: a number where it is one."""
    return int(scenario) if scenario.isascii() and scenario.isdecimal() and str(int(scenario)) == scenario else scenario


def _scenes(origin: Sequence[Path], options: CollectOptions) -> tuple[list[Path], Scenes]:
    """Where the scenarios are from, and those that are chosen."""
    paths = list(origin) or default_files(options.model != "stand-in")
    read = read_scenes(paths, options.mapping)
    return paths, Scenes(
        choose(read.scenes, options.characters, options.scenarios, options.limit), read.notes, read.sources
    )


def _speakers(options: CollectOptions) -> tuple[Speaker, Speaker | None]:
    """The model and the simulated user, who may be the same; None where what was recorded is asked."""
    speaker = _speaker(options, options.url, options.model, API_KEY, "--model")
    if options.follow_up == "recorded":
        return speaker, None
    if not options.user_url and not options.user_model:
        return speaker, speaker
    # A key is sent to the server that it belongs to and to no other.
    is_same = not options.user_url or (options.url is not None and address(options.user_url) == address(options.url))
    url, key = options.user_url or options.url, API_KEY if is_same else USER_API_KEY
    return speaker, _speaker(options, url, options.user_model or "auto", key, "--user-model", speaker.pace)


def _speaker(
    options: CollectOptions, url: str | None, model: str, key: str, option: str, pace: Pace | None = None
) -> Speaker:
    """A model on a server, or one in this process; ``pace`` is that of the model that is collected from."""
    if url:
        server = find_chat_server(url, model, key, option)
        return ServedSpeaker(server, options.patience, pace or Pace(options.concurrency, server.slots))
    hardware = detect()
    require_usable(hardware)
    checkpoint = resolve(model)
    load = engine_loader(options.engine, hardware, checkpoint, patience=options.patience)
    window = 256 if engine_name(options.engine, hardware) == "vllm" else 1
    return LocalSpeaker(checkpoint, checkpoint.dtype(hardware), load, window)


def _settings(options: CollectOptions, prompt: RolePrompt, speaker: Speaker, user: Speaker | None) -> dict[str, Any]:
    """What a reply depends on, by name."""
    return {
        "model": speaker.identity["name"],
        "model's files": digest(speaker.identity, 16),
        "user": options.follow_up if user is None else user.identity["name"],
        "user's files": None if user is None else digest(user.identity, 16),
        "prompts": prompt.digest,
        **{name: getattr(options, name) for name in ("temperature", "top_p", "max_tokens", "seed")},
    }
