"""A scenario as a chain: the user's question, the model's reply, what the user says to that, the next reply.

Each reply is kept before the next is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from judge.collection.options import CollectOptions
from judge.collection.role_prompt import Message, RolePrompt
from judge.collection.scenarios import Scene
from judge.collection.speakers import Speaker
from judge.collection.store import CHARACTER, USER, ReplyStore, Said
from judge.engines import Failure, Sampling
from judge.errors import Interrupted
from judge.progress import Progress
from judge.types import CONTENT_FILTER, EMPTY_ANSWER, Turn, digest

ONLY_THOUGHTS = "only_thoughts"
"""The reason of a reply that is cut before its thoughts end."""


TRIES = 3
"""How often an empty reply is asked for, each time with another seed."""


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
class Play:
    """Plays scenarios: what every reply needs.

    ``user`` is the simulated user, None where recorded questions are asked; ``stop`` ends it before the next reply.
    """

    options: CollectOptions
    prompt: RolePrompt
    speaker: Speaker
    user: Speaker | None
    store: ReplyStore
    progress: Progress
    stop: threading.Event

    async def scene(self, scene: Scene) -> None:
        """Play a scenario until it is done, a reply fails or the user stops it."""
        turns: list[Turn] = []
        for number in range(1, self.options.rounds_of(scene) + 1):
            if number == 1:
                question: str | None = scene.question
            elif self.user is None:
                question = scene.follow_ups[number - 2]
            else:
                asked = self.prompt.for_user(scene.character, turns)
                question = await self._said(scene, number, USER, self.user, asked)
            if question is None:
                return
            asked = self.prompt.for_character(scene.character, scene.profile, [*turns, Turn(question, None)])
            reply = await self._said(scene, number, CHARACTER, self.speaker, asked)
            if reply is None:
                return
            turns.append(Turn(question, reply))

    async def _said(
        self, scene: Scene, number: int, who: str, speaker: Speaker, asked: Sequence[Message]
    ) -> str | None:
        """What somebody says in a round, as it is kept or asked for now; None where there is nothing."""
        if kept := self.store.get(scene, number, who):
            return kept.text
        options, reason, detail, attempt = self.options, EMPTY_ANSWER, "", 0
        while attempt < TRIES:
            if self.stop.is_set():
                return None
            seed = seed_of(options.seed, scene, number, who, attempt)
            try:
                found = await speaker.say(asked, Sampling(options.temperature, options.top_p, seed), options.max_tokens)
            except Interrupted:  # what is under way elsewhere may still end
                return None
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
