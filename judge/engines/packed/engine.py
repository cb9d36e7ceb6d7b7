"""Scoring with a model of transformers in this process: all metrics of a batch of dialogues in one forward pass.

Three methods give the same scores:

- packed: each token of the prompt tree is computed once, rules and rubrics once, a character once, the opening of a
  dialogue once for all systems that answer it, and each dialogue once for all its leaves. Every layer is led along the
  tree (``tree_layers``).
- forked: the library's own cache is computed once for what leaves share, and copied (``forked``).
- plain: a call per leaf, of its whole prompt.

On loading, packed and forked are compared with plain on a short tree, and the first that equals it is used from then
on. Knows token ids and nothing of dialogues or metrics.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import GenerationConfig

from judge.engines import GREEDY, Array, Sampling, silent
from judge.engines.packed.forked import LONGEST_PIECE, ForkedCaches
from judge.engines.packed.kept import KEPT_OPENINGS, KEPT_PREFIXES, Kept
from judge.engines.packed.tree_layers import led_along
from judge.engines.packed.tree_pass import Computed, Place, Row, TreePass
from judge.errors import EngineError, one_line
from judge.models.weights import load_model
from judge.prompting.prompt_tree import Ids, PromptTree

METHODS = ("packed", "forked", "plain")
"""How a tree may be scored, the fastest first; the last needs no check."""


LONGEST_ROW = 6144
"""Tokens. A longer dialogue is not packed, as the memory of a mask grows with the square of the length."""


CHECKED = 24
"""Tokens of each part of a tree on which the methods are compared."""


SMALLEST_BATCH = 256
"""Tokens a pass, below which a pass that ran out of memory is not tried again."""


MALLOC = {-3: 2**25, -1: 2**30}
"""Bytes for glibc's M_MMAP_THRESHOLD, at its maximum, and for M_TRIM_THRESHOLD."""


TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""By precision, the largest difference of a token's probability at which two methods count as equal."""


Item = TypeVar("Item")


Read = Callable[[Tensor], Tensor]
"""What is taken of logits, a row per leaf: shape (leaves, any) from (leaves, vocabulary)."""


class PackedEngine:
    """Scores prompt trees with a causal language model in this process.

    Args:
        model: a causal language model of transformers, on its device.
        batch_tokens: how many tokens of dialogues one forward pass takes at most.
    """

    window = 1  # one batch of work, so that a run that goes on makes the same passes as one that was never stopped

    def __init__(self, model: Any, batch_tokens: int | None = None) -> None:
        self.model, self.device = model, model.device
        self.refused: dict[str, str] = {}  # methods that are not used, and why
        self.on_progress: Callable[[int], None] = silent
        self.batch_tokens = batch_tokens or (16384 if self.device.type == "cuda" else 4096)
        self._halved = 0
        config = model.config.get_text_config()
        if getattr(config, "attn_logit_softcapping", None):
            model.set_attn_implementation("eager")  # the library's other ways leave the cap out without a word
        self.max_tokens = int(getattr(config, "max_position_embeddings", 2**31))
        self._steady_until = _steady_until(config)
        self._forked_caches = ForkedCaches(model)
        self.forget()

    @classmethod
    def load(cls, folder: Path, batch_tokens: int | None = None) -> PackedEngine:
        """The engine of a model folder (config, safetensors), on the visible GPU with most memory free or on the CPU.

        Raises:
            EngineError: the model cannot be loaded.
        """
        device, dtype = torch.device("cpu"), torch.float32
        faster = logging.getLogger("transformers.integrations.hub_kernels")
        faster.setLevel(logging.WARNING if torch.cuda.is_available() else logging.ERROR)  # kernels for GPUs to install
        if torch.cuda.is_available():
            free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
            device, dtype = torch.device("cuda", free.index(max(free))), torch.bfloat16
        elif sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
            # By default glibc returns a freed layer to the system, and the next layer is mapped and zeroed anew. That
            # was a sixth of a small model's time. Other C libraries have no mallopt and are left as they are.
            for option, value in MALLOC.items():
                mallopt(option, value)
        try:
            model = load_model(folder, dtype).to(device).eval()
        except ImportError as error:  # of what reads weights that are quantised in another way than GGUF's
            raise EngineError(
                f"{folder}: its weights are quantised in a way that needs a library which is not here ("
                f"{one_line(error)}); install it, or choose the same model without quantisation"
            ) from error
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            own = "it needs code of its own, which is never run; choose another judge"
            reason = own if "custom code" in str(error) else one_line(error)
            raise EngineError(f"{folder}: the model cannot be loaded: {reason}") from error
        return cls(model, batch_tokens)

    def forget(self) -> None:
        """Let go of what was computed and kept, which no longer holds once weights have changed."""
        self._prefixes: Kept[Computed] = Kept(KEPT_PREFIXES)
        self._openings: Kept[tuple[Computed, dict[Ids, Place]]] = Kept(KEPT_OPENINGS)
        self._forked_caches.forget()

    @property
    def method(self) -> str:
        """The method in use."""
        return next(method for method in METHODS if method not in self.refused)

    @property
    def name(self) -> str:
        """The method in use, with why it is not a faster one."""
        why = "; ".join(f"{method}: {reason}" for method, reason in self.refused.items())
        return f"{self.method} ({why})" if self.method != "packed" else "packed"

    def verify(self, tree: PromptTree) -> None:
        """Compare packed and forked with plain on a short piece of a tree, and do without, for good, what differs.

        Two leaves of some hundred tokens are enough: a wrong mask, state or position shows in the first token after
        it, and windows are the library's own rule. The whole vocabulary is compared, since on so little text the
        levels may have no probability that could differ.
        """
        short = short_piece(tree)

        def probabilities(logits: Tensor) -> Tensor:
            # And not their logarithms: a token of no probability may differ in its logarithm by anything.
            return logits.float().softmax(dim=-1)

        try:
            plain = self._plain([short], probabilities)[0]
        except RuntimeError as error:
            raise EngineError(f"the model fails on this machine: {one_line(error)}; choose another judge") from error
        for method, score in (("packed", self._packed), ("forked", self._forked)):
            if method in self.refused:
                continue
            try:
                found = score([short], probabilities)[0]
            except torch.OutOfMemoryError as error:
                raise EngineError(f"the model leaves too little memory: {one_line(error)}; free some") from error
            except Exception as error:  # a model with layers of a way of their own fails in a way of its own
                self.refused[method] = f"it fails on this model: {one_line(error) or type(error).__name__}"
                continue
            if (largest := float(np.abs(found - plain).max())) > TOLERANCE[self.model.dtype]:
                self.refused[method] = f"it differs from plain by {largest:.2g} in probability"
        # Weights may be such that an unknown layer hardly shows in so few tokens. The library's cache tells of it.
        if not self.refused and (unknown := self._unknown_layers(short)):
            self.refused["packed"] = f"it does not know what layer {min(unknown)} keeps"
        self.forget()  # of so short a tree nothing is asked again

    @torch.inference_mode()
    def _unknown_layers(self, tree: PromptTree) -> set[int]:
        """The layers of which the library's cache keeps something that a pass over a tree does not."""
        ours = self._prefix(tree.root, tree.character)
        kept = self._forked_caches.kept(tree)
        return {layer for field, layer in kept if layer not in getattr(ours, field)}

    def level_logprobs(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Array]:
        """See ``Engine.level_logprobs``."""
        score = {"packed": self._packed, "forked": self._forked, "plain": self._plain}[self.method]
        while True:
            try:
                return score(trees, partial(_level_logprobs, level_ids=level_ids))
            except torch.OutOfMemoryError as error:
                if self.batch_tokens < 2 * SMALLEST_BATCH or self.method == "plain":
                    lack = f"out of memory: {one_line(error)}; free some or choose a smaller judge"
                    raise EngineError(lack) from error
                # What is kept of earlier batches goes first: it is the memory that can be had back for sure.
                self.forget()
                torch.cuda.empty_cache()
                self.batch_tokens //= 2
                self._halved += 1
            except RuntimeError as error:  # a lost device, a kernel that is missing
                raise EngineError(f"the model failed: {one_line(error)}; choose another judge or device") from error

    @torch.inference_mode()
    def generate(self, trees: Sequence[PromptTree], max_tokens: int) -> list[list[Ids]]:
        """See ``Engine.generate``; one prompt after another, but what they share is computed once."""

        def continued(tree: PromptTree, leaf: int) -> Ids:
            above = None  # or what generating appends to
            if "forked" not in self.refused:
                above = deepcopy(self._forked_caches.prefix(tree))
            return self._continued(tree.prompt(leaf), GREEDY, max_tokens, above)

        return [[continued(tree, leaf) for leaf in range(len(tree.leaves))] for tree in trees]

    def write(self, prompts: Sequence[Ids], samplings: Sequence[Sampling], max_tokens: int) -> list[Ids]:
        """See ``Writer.write``; one prompt after another, so that no text depends on its neighbours."""
        return [self._continued(ids, sampling, max_tokens) for ids, sampling in zip(prompts, samplings, strict=True)]

    @torch.inference_mode()
    def _continued(self, ids: Ids, sampling: Sampling, max_tokens: int, above: Any = None) -> Ids:
        """What the model writes after a prompt of which ``above`` is computed already."""
        end = self.model.generation_config.eos_token_id
        ends = end if isinstance(end, list) else [end]
        # As it is asked, whatever the model's folder says of sampling.
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        how = drawn if sampling.temperature else {"do_sample": False}
        config = GenerationConfig(max_new_tokens=max_tokens, eos_token_id=end, pad_token_id=ends[0], **how)
        prompt = torch.tensor([ids], device=self.device)
        try:
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                torch.manual_seed(sampling.seed)
                found = self.model.generate(
                    prompt, attention_mask=torch.ones_like(prompt), past_key_values=above, generation_config=config
                )
        except RuntimeError as error:  # out of memory too
            raise EngineError(f"the model failed: {one_line(error)}; free some memory or choose another") from error
        return tuple(found[0, prompt.shape[1] :].tolist())

    def kept_at_most(self, prefix: int, opening: int, openings: int) -> float:
        """Bytes that are kept at most of shared prefixes and openings of these many tokens, so many openings a batch.

        Worked out from what is kept at the time, as layers of different kinds keep different things.
        """
        if self.method == "plain":
            return 0.0
        if self.method == "forked":
            return self._forked_caches.token_bytes * (KEPT_PREFIXES * prefix + prefix + opening)
        token = max(
            (computed.bytes / computed.tokens for _, computed in self._prefixes.items() if computed.tokens), default=0.0
        )
        return token * (KEPT_PREFIXES * prefix + KEPT_OPENINGS * openings * opening)

    @property
    def report(self) -> dict[str, Any]:
        """See ``Engine.report``."""
        return {"name": self.name, "batch_tokens": self.batch_tokens, "out_of_memory": self._halved}

    @torch.inference_mode()
    def _plain(self, trees: Sequence[PromptTree], read: Read) -> list[Array]:
        """What is read off each tree's logits, by a call per leaf; nothing is kept from one to the next."""

        found = []
        for tree in trees:
            rows = []
            for prompt in tree.prompts:
                ids = torch.tensor([prompt], device=self.device)
                output = self.model(input_ids=ids, use_cache=False, logits_to_keep=1)
                rows.append(_to_array(read(output.logits[0])))
            found.append(np.concatenate(rows))
            self.on_progress(len(tree.leaves))
        return found

    @torch.inference_mode()
    def _forked(self, trees: Sequence[PromptTree], read: Read) -> list[Array]:
        """What is read off each tree's logits, by copies of the library's cache."""
        found: list[Array] = [np.empty(0)] * len(trees)
        at_once = max(1, self.batch_tokens // SMALLEST_BATCH)
        # Trees with the same opening after one another, so that its cache is at hand.
        for i in sorted(range(len(trees)), key=lambda i: (trees[i].root, trees[i].character, trees[i].opening)):
            if self.is_steady(trees[i]):
                found[i] = _to_array(read(self._forked_caches.leaf_logits(trees[i], at_once)))
                self.on_progress(len(found[i]))
            else:
                found[i] = self._plain([trees[i]], read)[0]
        return found

    def is_steady(self, tree: PromptTree) -> bool:
        """Whether what stands above a branch is the same whatever follows."""
        return max(tree.lengths) <= self._steady_until

    @torch.inference_mode()
    def _packed(self, trees: Sequence[PromptTree], read: Read) -> list[Array]:
        """What is read off each tree's logits, by one pass per batch of trees that share root and character."""
        found: list[Array] = [np.empty(0)] * len(trees)
        for (root, character), group in groupby(range(len(trees)), key=lambda i: (trees[i].root, trees[i].character)):
            short = []
            for i in group:
                if not self.is_steady(trees[i]) or max(trees[i].own, len(trees[i].opening)) > LONGEST_ROW:
                    otherwise = self._plain if "forked" in self.refused else self._forked
                    found[i] = otherwise([trees[i]], read)[0]
                else:
                    short.append(i)
            if not short:
                continue
            prefix = self._prefix(root, character)
            above, places = self._computed_openings([trees[i] for i in short], prefix)
            # By length, so that the rows of a batch are about as long as each other: masks are as wide as the longest.
            short.sort(key=lambda i: trees[i].own)
            batches = list(by_budget(short, lambda i: trees[i].own, self.batch_tokens))
            # On a GPU all batches are on their way before the first result is fetched, since fetching waits for it.
            passes = (read(self._leaf_logits([trees[i] for i in batch], prefix, above, places)) for batch in batches)
            for batch, taken in zip(batches, passes if self.device.type == "cpu" else list(passes), strict=True):
                ends = list(accumulate(len(trees[i].leaves) for i in batch))
                for i, own in zip(batch, np.split(_to_array(taken), ends[:-1]), strict=True):
                    found[i] = own
                    self.on_progress(len(own))
        return found

    def _leaf_logits(
        self, trees: Sequence[PromptTree], prefix: Computed, above: Computed, places: dict[Ids, Place]
    ) -> Tensor:
        """Logits at the leaves of all trees, shape (leaves, vocabulary), on the model's device."""
        ids = [token for tree in trees for part in (tree.dialogue, *tree.leaves) for token in part]
        rows = [
            Row(len(tree.dialogue), tuple(map(len, tree.leaves)), places.get(tree.opening, Place())) for tree in trees
        ]
        return self._run(ids, rows, prefix, above)[0]

    def _prefix(self, root: Ids, character: Ids) -> Computed:
        """What layers need of root and character, computed once; the last few are kept."""

        def extended(prefix: Computed, ids: Ids) -> Computed:
            for start in range(0, len(ids), LONGEST_PIECE):
                piece = ids[start : start + LONGEST_PIECE]
                prefix = prefix.followed_by(self._run(piece, [Row(len(piece))], prefix, Computed())[1])
            return prefix

        start = self._prefixes.get(root, lambda: extended(Computed(), root))
        return self._prefixes.get(root + character, lambda: extended(start, character))

    def _computed_openings(self, trees: Sequence[PromptTree], prefix: Computed) -> tuple[Computed, dict[Ids, Place]]:
        """What layers need of the openings of some trees, and where each opening stands in it.

        Systems that answer the same openings find them computed.
        """
        openings = tuple(sorted({tree.opening for tree in trees if tree.opening}, key=lambda ids: (len(ids), ids)))

        def compute() -> tuple[Computed, dict[Ids, Place]]:
            ends = list(accumulate(map(len, openings)))
            places = {
                ids: Place(number, end - len(ids), end)
                for number, (ids, end) in enumerate(zip(openings, ends, strict=True), start=1)
            }
            passes = [
                self._run(
                    [token for ids in batch for token in ids], [Row(len(ids)) for ids in batch], prefix, Computed()
                )
                for batch in by_budget(openings, len, self.batch_tokens)
            ]
            return Computed.beside([computed for _, computed in passes]), places

        # Looked up as a whole set and never one by one. The last bits of a float depend on what is computed beside
        # it, so openings taken from an earlier batch would make these scores depend on what was judged before.
        return self._openings.get((trees[0].root, trees[0].character, openings), compute)

    def _run(
        self, ids: Sequence[int], rows: Sequence[Row], prefix: Computed, above: Computed
    ) -> tuple[Tensor, Computed]:
        """One forward pass over some rows.

        Args:
            ids: the tokens of all rows, one row after another.
            rows: how the tokens belong together.
            prefix, above: what was computed before: of what all rows share, and of the openings.

        Returns:
            The logits at the ends of the leaves, shape (leaves, vocabulary), and what layers leave behind.
        """
        tree = TreePass(rows, prefix, above, self.device)
        with led_along(self.model, tree) as more:
            tokens = torch.tensor([ids], device=self.device)
            output = self.model(input_ids=tokens, use_cache=False, logits_to_keep=tree.last, **more)
        return output.logits[0], tree.computed


def short_piece(tree: PromptTree) -> PromptTree:
    """A tree on which methods are compared: the last tokens of each part, and two leaves at most."""
    root, character, opening, dialogue = (
        part[-CHECKED:] for part in (tree.root, tree.character, tree.opening, tree.dialogue)
    )
    return PromptTree(root, character, opening, dialogue, tuple(leaf[-CHECKED:] for leaf in tree.leaves[:2]))


def by_budget(items: Iterable[Item], size: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """Consecutive items whose sizes add up to at most ``most``; an item that is larger stands alone."""
    batch: list[Item] = []
    for item in items:
        if batch and sum(map(size, batch)) + size(item) > most:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _level_logprobs(logits: Tensor, level_ids: Sequence[Ids]) -> Tensor:
    """Log-probability of each level over the whole vocabulary: shape (positions, 5) from (positions, vocabulary)."""
    logits = logits.float()
    levels = [logits[:, list(ids)].logsumexp(dim=-1) for ids in level_ids]
    return torch.stack(levels, dim=-1) - logits.logsumexp(dim=-1, keepdim=True)


def _to_array(logprobs: Tensor) -> Array:
    return np.asarray(logprobs.double().cpu().numpy())


def _steady_until(config: Any) -> float:
    """How long a prompt may be, in tokens, before its length changes how its beginning is computed.

    LongRoPE (Ding et al. 2024) has one set of frequencies for prompts up to a length and another for longer ones.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    if "longrope" not in str(rope):
        return float("inf")
    until = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    return float(until or 0)
