"""(a) One call of a transformers model per judgment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks.contestants.prompts import Prompts, every_prompt, scores
from benchmarks.task import Conversation, Job, run
from judge.engines import Array


class Plain:
    """Each prompt by itself, in full."""

    def __init__(self, job: Job) -> None:
        self._prompts = Prompts(job.model)
        self._device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
        self._model = AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype).to(self._device).eval()

    def score(self, dialogues: Sequence[Conversation]) -> list[float | None]:
        prompts = every_prompt(self._prompts.trees(dialogues))
        return scores([np.stack([self._level_logprobs(prompt) for prompt in prompts])])

    @torch.inference_mode()
    def _level_logprobs(self, prompt: tuple[int, ...]) -> Array:
        ids = torch.tensor([prompt], device=self._device)
        logits = self._model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1]
        logprobs = logits.float().log_softmax(dim=-1)
        levels = [logprobs[list(tokens)].logsumexp(dim=-1) for tokens in self._prompts.level_ids]
        return np.asarray(torch.stack(levels).double().cpu().numpy())

    def forget(self) -> None:
        """Nothing is kept between calls."""

    def facts(self) -> dict[str, Any]:
        counts = self._prompts.counts()
        return {**counts, "computed_tokens": counts["prompt_tokens"]}


if __name__ == "__main__":
    run(Plain)
