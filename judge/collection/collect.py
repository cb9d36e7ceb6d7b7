"""From a model to its dialogues: all scenarios are played, many at the same time, and the same call again goes on."""

from __future__ import annotations

import asyncio
import json
import platform
import re
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from judge.collection.options import CollectOptions
from judge.collection.play import Play
from judge.collection.role_prompt import Message, RolePrompt, load_role_prompt
from judge.collection.scenarios import YAML, Scene, Scenes, choose, default_files, read_scenes
from judge.collection.speakers import LocalSpeaker, ServedSpeaker, Speaker
from judge.collection.store import CHARACTER, USER, ReplyStore, Said
from judge.data.dataset import Corpus, sort_key
from judge.data.fields import Wrong, name_of
from judge.engines.chat_server import find_chat_server
from judge.engines.connections import API_KEY
from judge.engines.in_process import engine_loader, engine_name
from judge.engines.patient_client import Pace, paced
from judge.engines.served_model import address
from judge.errors import EngineError, InputError, Interrupted, discreet
from judge.files import replacing
from judge.models.checkpoint import resolve
from judge.models.hardware import detect, require_usable
from judge.progress import SILENT, Progress, stoppable
from judge.remote import address_of
from judge.types import Turn, digest

DIALOGUES, OTHERS, MANIFEST = "dialogues.json", "others.jsonl", "manifest.json"
"""The files of a collection beside its replies."""


USER_API_KEY = "ESRP_USER_API_KEY"
"""The environment variable with the key of the simulated user's server, where that is another server."""


COUNTED = ("source", "dialogues", "wanted", "earlier", "missing", "details", "cut")
"""What the manifest has of a ``Collected``."""


CUT = "length"
"""Why a reply ended that is cut at the most tokens."""


@dataclass(frozen=True, slots=True)
class Collected:
    """A finished collection: its folder and system, and how many dialogues and replies there are.

    ``file`` has the dialogues, None where there are none: those that were wanted now, and ``earlier``, which are those
    that only earlier calls wanted. ``tokens`` are those that were written, of replies whose number is known.
    ``retries`` are further tries of all sessions, ``cut`` the replies that end at the most tokens.
    ``missing`` counts by reason the dialogues that lack a reply, ``details`` has for a reason what a server said, where
    it said something. ``compared`` are the dialogues that the scenarios are from: the data, or where a part of them was
    chosen or a mapping is needed to read them, a file of those of the characters and scenarios that ``file`` has.
    """

    folder: Path
    source: str
    file: Path | None
    dialogues: int
    wanted: int
    earlier: int
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
    rounds = [options.rounds_of(scene) for scene in scenes.scenes]
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
        speaker, user = _speakers(options, progress)
    try:
        source = name_of(options.source or speaker.name.rpartition("/")[2], "source")
    except Wrong as wrong:
        raise InputError(f"--source: {wrong}") from wrong
    if source in chosen.sources:
        raise InputError(f"a system {source} is in the data already; name this one otherwise by --source")
    settings = _settings(options, prompt, speaker, user)
    folder = options.out or Path("results") / default_name(source, settings, paths)
    with closing(ReplyStore(folder, settings, {scene: options.rounds_of(scene) for scene in scenes})) as store:
        progress.note(f"{speaker.name} plays {len(scenes):,} dialogues into {folder}")
        if fewer := sum(options.rounds_of(scene) < options.rounds for scene in scenes):
            progress.note(
                f"{fewer:,} of them have fewer than {options.rounds} recorded rounds, and get as many as those"
            )
        started = time.monotonic()
        try:
            with stoppable() as stop:
                _complete(Play(options, prompt, speaker, user, store, progress, stop), scenes)
        finally:
            retries = sum(one.retries for one in dict.fromkeys((speaker, user)) if one)
            store.add_session(discreet(" ".join(sys.argv)), time.monotonic() - started, retries)
        with progress.busy("writing the dialogues"):
            result = _written(options, store, scenes, source, paths)
        command, seconds, retries = store.course()
        about = {
            **{name: getattr(result, name) for name in COUNTED},
            "settings": settings,
            "rounds": options.rounds,
            "follow_up": options.follow_up,
            "prompts": asdict(prompt),
            "scenarios": {
                "paths": [address_of(path) or str(path) for path in paths],
                "digest": digest([asdict(one) for one in scenes]),
            },
            "model": {**speaker.identity, **speaker.report},
            "user": None if user is None else {**user.identity, **user.report},
            "seconds": round(seconds, 1),
            "retries": retries,
            "command": command,
            "versions": {"esrp-judge": version("esrp-judge"), "python": platform.python_version()},
        }
        with replacing(folder / MANIFEST) as file:
            file.write(json.dumps(about, ensure_ascii=False, indent=2).encode() + b"\n")
    return result


def default_name(source: str, settings: Mapping[str, Any], paths: Sequence[Path]) -> str:
    """What the folder of a collection is called, if it is not named: a name that leads nowhere else."""
    places = [address_of(path) or str(path.resolve()) for path in paths]
    shown = re.sub(r"[^\w.-]+", "-", source.lower())[:40].strip("-.")
    return "-".join(filter(None, ("collected", shown, digest([settings, places], 8))))


def _complete(play: Play, scenes: Sequence[Scene]) -> None:
    """Ask for every reply that is missing; EngineError and Interrupted say where the others are."""
    options, store = play.options, play.store
    kept = {key for key, _ in store.replies()}
    wanted = {
        scene: {
            (scene.character, scene.scenario, number, who)
            for number in range(1, options.rounds_of(scene) + 1)
            for who in ((CHARACTER, USER) if play.user and number > 1 else (CHARACTER,))
        }
        for scene in scenes
    }
    # Only these: those that are there would be done at once, and a server would seem to be faster than it is.
    todo = [scene for scene, keys in wanted.items() if not keys <= kept]
    done = sum(len(keys & kept) for keys in wanted.values())
    play.progress.begin("replies", sum(map(len, wanted.values())), done, "replies")
    if not todo:
        return

    async def everything() -> None:
        async with AsyncExitStack() as stack:
            for speaker in dict.fromkeys((play.speaker, play.user or play.speaker)):
                await stack.enter_async_context(speaker.opened(play.stop, play.progress.note))
            await paced([partial(play.scene, scene) for scene in todo], play.speaker.pace)

    saved = f"every reply so far is in {store.folder};"
    try:
        asyncio.run(everything())
    except EngineError as error:
        if error.can_go_on:
            raise
        raise EngineError(f"{error}; {saved} fix that, then", can_go_on=True) from error
    if play.stop.is_set():
        raise Interrupted(f"stopped; {saved}", can_go_on=True)


def _written(
    options: CollectOptions,
    store: ReplyStore,
    scenes: Sequence[Scene],
    source: str,
    paths: Sequence[Path],
) -> Collected:
    """Write the dialogues that have every reply, those of earlier calls among them, and count."""
    said, now = dict(store.replies()), set(scenes)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    used: list[tuple[str, Said]] = []
    lacking: list[Scene] = []
    for scene, number in sorted(store.scenes().items(), key=lambda one: (one[0].character, sort_key(one[0].scenario))):
        if played := _played(scene, number, said, options):
            rounds, own = played
            profile = {} if scene.profile is None else {"profile": scene.profile}
            found[scene.pair] = {"dialog_id": _as_number(scene.scenario), "source": source, **rounds, **profile}
            used += own if scene in now else ()
        elif scene in now:
            lacking.append(scene)
    file = store.folder / DIALOGUES
    if found:
        rows = {
            character: [found[pair] for pair in pairs] for character, pairs in groupby(found, key=lambda pair: pair[0])
        }
        with replacing(file) as out:
            out.write(json.dumps(rows, ensure_ascii=False, indent=2).encode() + b"\n")
    failures = store.failures(lacking)
    done = len(scenes) - len(lacking)
    return Collected(
        folder=store.folder,
        source=source,
        file=file if found else None,
        dialogues=done,
        wanted=len(scenes),
        earlier=len(found) - done,
        replies=sum(who == CHARACTER for who, _ in used),
        user_replies=sum(who == USER for who, _ in used),
        tokens=sum(one.tokens or 0 for _, one in used),
        retries=store.course()[2] + sum(one.tries - 1 for one in said.values()),
        cut=sum(one.finish == CUT for _, one in used),
        missing=dict(sorted(Counter(reason for reason, _ in failures).items())),
        details={reason: detail for reason, detail in failures if detail},
        compared=_compared(options, paths, store, set(found)),
    )


def _compared(
    options: CollectOptions, paths: Sequence[Path], store: ReplyStore, pairs: Collection[tuple[str, str]]
) -> tuple[Path, ...]:
    """Where the dialogues are that other systems had as these characters in these scenarios."""
    if any(path.suffix.lower() in YAML for path in paths):
        return ()
    if not (options.characters or options.scenarios or options.limit or options.mapping):
        return tuple(paths)
    file = store.folder / OTHERS
    with closing(Corpus(paths, mapping=options.mapping)) as corpus, replacing(file) as out:
        for one in corpus:
            if (one.character, one.scenario) in pairs:
                row = {"source": one.source, "character": one.character, "scenario": one.scenario}
                profile = {} if one.profile is None else {"profile": one.profile}
                said = [
                    (role, text)
                    for turn in one.turns
                    for role, text in (("user", turn.user), ("assistant", turn.character))
                ]
                messages = [{"role": role, "content": text} for role, text in said if text is not None]
                out.write(json.dumps({**row, **profile, "messages": messages}, ensure_ascii=False).encode() + b"\n")
    return (file,)


def _played(
    scene: Scene, rounds_of_it: int, said: Mapping[tuple[str, str, int, str], Said], options: CollectOptions
) -> tuple[dict[str, str], list[tuple[str, Said]]] | None:
    """The rounds of a scenario as ChatAnime writes them, and who said what in them; None where a reply is missing."""
    rounds: dict[str, str] = {}
    used: list[tuple[str, Said]] = []
    asked: tuple[str, ...] = (scene.question, *(scene.follow_ups if options.follow_up == "recorded" else ()))
    for number in range(1, rounds_of_it + 1):
        key = (scene.character, scene.scenario, number)
        question, reply = said.get((*key, USER)), said.get((*key, CHARACTER))
        if reply is None or (number > len(asked) and question is None):
            return None
        if number > len(asked) and question:
            asked = (*asked, question.text)
            used.append((USER, question))
        used.append((CHARACTER, reply))
        rounds |= {f"question_r{number}": asked[number - 1], f"answer_r{number}": reply.text}
    return rounds, used


def _as_number(scenario: str) -> int | str:
    """A scenario as ChatAnime writes it: a number where it is one."""
    return int(scenario) if scenario.isascii() and scenario.isdecimal() and str(int(scenario)) == scenario else scenario


def _scenes(origin: Sequence[Path], options: CollectOptions) -> tuple[list[Path], Scenes]:
    """Where the scenarios are from, and those that are chosen.

    What no reply depends on is left out of them, so that data to which more systems were added go on.
    """
    paths = list(origin) or default_files(options.model != "stand-in")
    read = read_scenes(paths, options.mapping)
    scenes = choose(read.scenes, options.characters, options.scenarios, options.limit)
    if options.follow_up == "simulated":
        scenes = [replace(scene, follow_ups=()) for scene in scenes]
    return paths, replace(read, scenes=scenes)


def _speakers(options: CollectOptions, progress: Progress) -> tuple[Speaker, Speaker | None]:
    """The model and the simulated user, who may be the same; None where what was recorded is asked."""
    speaker = _speaker(options, progress, options.url, options.model)
    if options.follow_up == "recorded":
        return speaker, None
    if not options.user_url and not options.user_model:
        return speaker, speaker
    # A key is sent to the server that it belongs to and to no other.
    theirs = options.user_url and address(options.user_url, "--user-url", USER_API_KEY)
    is_other = theirs and (not options.url or theirs != address(options.url))
    key, place = (USER_API_KEY if is_other else API_KEY), ("--user-url" if theirs else "--url")
    model = options.user_model or "auto"
    return speaker, _speaker(options, progress, theirs or options.url, model, key, "--user-model", place, speaker.pace)


def _speaker(
    options: CollectOptions,
    progress: Progress,
    url: str | None,
    model: str,
    key: str = API_KEY,
    option: str = "--model",
    place: str = "--url",
    pace: Pace | None = None,
) -> Speaker:
    """A model on a server, or one in this process; ``pace`` is that of the model that is collected from.

    ``option`` and ``place`` are what the options are called that name it and its server.
    """
    if url:
        server = find_chat_server(url, model, key, option, place)
        if server.listed and not server.is_listed:
            progress.note(f"{server.url} lists {', '.join(server.listed[:20])} and not {server.model}, yet it answers")
        return ServedSpeaker(server, options.patience, pace or Pace(options.concurrency, server.slots))
    hardware = detect()
    require_usable(hardware)
    checkpoint = resolve(model, option=option)
    load = engine_loader(options.engine, hardware, checkpoint, patience=options.patience)
    name = engine_name(options.engine, hardware)
    window = 256 if name == "vllm" else 1
    return LocalSpeaker(checkpoint, name, checkpoint.dtype(hardware), load, window)


def _settings(options: CollectOptions, prompt: RolePrompt, speaker: Speaker, user: Speaker | None) -> dict[str, Any]:
    """What a reply depends on, by name."""
    return {
        "model": speaker.identity["name"],
        "model's files": digest(speaker.identity, 16),
        "user": options.follow_up if user is None else user.identity["name"],
        "user's files": None if user is None else digest(user.identity, 16),
        **speaker.runs_by,
        **{f"user's {name}": value for name, value in (user.runs_by.items() if user else ())},
        "prompts": prompt.digest,
        **{name: getattr(options, name) for name in ("temperature", "top_p", "max_tokens", "seed")},
    }
