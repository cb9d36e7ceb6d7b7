"""(d) vLLM in process with prompts as peers lay them out: the dialogue first, then one metric's rubric alone."""

from __future__ import annotations

from functools import partial

from benchmarks.contestants.vllm_ours import Vllm
from benchmarks.task import run

if __name__ == "__main__":
    run(partial(Vllm, layout="separate"))
