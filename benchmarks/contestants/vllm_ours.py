"""(c) vLLM in process with the project's prompts: rubrics first, so that its prefix cache holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.contestants.prompts import Prompts, every_prompt, scores
from benchmarks.task import Conversation, Job, run
from judge.engines import Array, by_level


class Vllm:
    """One ``generate`` for all prompts, a dialogue's metrics next to each other, one constrained token each."""

    def __init__(self, job: Job, layout: str = "prefill") -> None:
        from vllm import LLM, SamplingParams

        self._prompts = Prompts(job.model, layout)
        settings = {name: job.settings[name] for name in ("dtype", "block_size", "max_model_len")}
        self._llm = LLM(model=job.model, enforce_eager=True, enable_prefix_caching=True, seed=0, **settings)
        tokens = [token for level in self._prompts.level_ids for token in level]
        self._sampling = SamplingParams(
            max_tokens=1, temperature=0, logprob_token_ids=tokens, allowed_token_ids=tokens, detokenize=False
        )
        self._computed = 0

    def score(self, dialogues: Sequence[Conversation]) -> list[float | None]:
        prompts = every_prompt(self._prompts.trees(dialogues))
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        answers = self._llm.generate(asked, self._sampling, use_tqdm=False)
        self._computed = sum(
            len(prompt) - (answer.num_cached_tokens or 0) for prompt, answer in zip(prompts, answers, strict=True)
        )
        return scores([np.array([self._levels(answer.outputs[0].logprobs[0]) for answer in answers])])

    def _levels(self, logprobs: dict[int, Any]) -> Array:
        return by_level({token: found.logprob for token, found in logprobs.items()}, self._prompts.level_ids)

    def forget(self) -> None:
        self._llm.reset_prefix_cache()

    def facts(self) -> dict[str, Any]:
        return {**self._prompts.counts(), "computed_tokens": self._computed}


if __name__ == "__main__":
    run(Vllm)
