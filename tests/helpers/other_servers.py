"""Servers that speak as llama.cpp's, SGLang's and those of decisions do, each with the stand-in's real model behind it.

Routes, fields and shapes are those of their documentation: llama.cpp ``tools/server/README.md``; SGLang ``/generate``
(native API) and ``/v1/systemone``; vLLM 0.32 ``/v1/systemone``; OpenAI ``/v1/decisions`` (openai-python 3.57, types
``decision_create_params`` and ``decision``); the older completions (OpenAI, legacy).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.helpers.serving import Model


class LlamaCppModel(Model):
    """llama.cpp's server; ``most`` is the most likely tokens that it lists."""

    most = 2**31
    slots = 3

    def __init__(self, folder: Path, **served: Any) -> None:
        file = {"id": str(folder / "tiny.gguf"), "owned_by": "llamacpp", "root": None, "max_model_len": None}
        super().__init__(folder, **file | served)

    def answer(self, path: str, body: Any) -> Any:
        if path == "/props":
            settings = {"n_ctx": 32768}
            template = {"chat_template": "a template", "bos_token": "", "eos_token": "<|im_end|>"}
            return {"total_slots": self.slots, "default_generation_settings": settings, **template}
        if path == "/tokenize":
            return {"tokens": self.tokens(**body)}
        if path == "/detokenize":
            return {"content": self.tokenizer.text(body["tokens"])}
        if path == "/apply-template":
            return {"prompt": self.tokenizer._render(body["messages"], not body["add_generation_prompt"])}
        if path == "/completion":
            return self.completion(body)
        if path == "/v1/systemone":
            raise NotImplementedError
        return super().answer(path, body)

    def tokens(self, content: str, parse_special: bool = True, with_pieces: bool = False, **_: Any) -> list[Any]:
        ids = self.tokenizer.encode(content) if parse_special else self.tokenizer.encode_untrusted(content)
        return [{"id": token, "piece": self.tokenizer.text([token])} for token in ids] if with_pieces else list(ids)

    def completion(self, body: Any) -> Any:
        if not body.get("n_probs"):
            return {"tokens": self.write(body["prompt"], body["n_predict"])}
        logprobs = self._logprobs(body["prompt"])
        found = logprobs.topk(min(body["n_probs"], self.most, len(logprobs)))
        top = [{"id": i, "logprob": p, **self.spelt("")} for i, p in zip(*map(list_of, found[::-1]), strict=True)]
        return {"completion_probabilities": [{**top[0], "top_logprobs": top}]}


class SglangModel(Model):
    """SGLang's server."""

    def __init__(self, folder: Path, **served: Any) -> None:
        super().__init__(folder, **{"owned_by": "sglang"} | served)

    def answer(self, path: str, body: Any) -> Any:
        if path == "/generate":
            return [self.generated(ids, body) for ids in body["input_ids"]]
        if path == "/v1/completions":
            raise NotImplementedError
        return super().answer(path, body)

    def generated(self, ids: list[int], body: Any) -> Any:
        if not body.get("return_logprob"):
            return {"output_ids": self.write(ids, body["sampling_params"]["max_new_tokens"]), "meta_info": {}}
        logprobs = self._logprobs(ids)
        listed = [(logprobs[token].item(), token, None) for token in body["token_ids_logprob"]]
        return {"output_ids": [0], "meta_info": {"output_token_ids_logprobs": [listed]}}


class OldModel(Model):
    """A server of the older completions alone; ``as_lists`` gives tokens and log-probabilities as two lists."""

    def __init__(self, folder: Path, **served: Any) -> None:
        super().__init__(folder, **{"owned_by": "somebody"} | served)

    def answer(self, path: str, body: Any) -> Any:
        if path != "/v1/completions":
            if path == "/v1/models":
                return super().answer(path, body)
            raise NotImplementedError
        ids = self.tokenizer.encode(body["prompt"])
        if not body.get("logprobs"):
            return {"choices": [{"index": 0, "text": self.tokenizer.text(self.write(ids, body["max_tokens"]))}]}
        content = self._listed(ids, body["logprobs"])["logprobs"]["content"][0]
        top: dict[str, float] = {}
        for entry in content["top_logprobs"]:
            top.setdefault(entry["token"], entry["logprob"])
        return {"choices": [{"index": 0, "text": "", "logprobs": {"tokens": ["4"], "top_logprobs": [top]}}]}


class SystemOneModel(Model):
    """A server of ``/v1/systemone``; ``told`` says where it tells the label mass: vLLM, SGLang, or not at all."""

    told: str | None = "vllm"

    def __init__(self, folder: Path, **served: Any) -> None:
        super().__init__(folder, **{"owned_by": "somebody"} | served)

    def answer(self, path: str, body: Any) -> Any:
        if path == "/v1/models":
            return super().answer(path, body)
        if path != "/v1/systemone":
            raise NotImplementedError
        answers, diagnostics = {}, {}
        for name, question in body["questions"].items():
            shares, mass = self.decide(body["state"], question["instructions"], question["criteria"])
            score = sum(place * share for place, share in enumerate(shares))
            probabilities = {str(place): share for place, share in enumerate(shares)}
            answers[name] = {"type": "score", "score": score, "probabilities": probabilities}
            diagnostics[name] = {"label_mass": mass, "argmax_is_label": True}
            if self.told == "sglang":
                answers[name]["x_label_mass"] = mass
        return {"answers": answers, **({"diagnostics": diagnostics} if self.told == "vllm" else {})}

    def decide(self, material: str, instructions: str, levels: list[str]) -> tuple[list[float], float]:
        """The probability of each level among the levels, and of all together."""
        lines = [material, f"Question: {instructions}", *(f"{i}: {text}" for i, text in enumerate(levels)), ""]
        logprobs = self._logprobs(self.tokenizer.encode("\n".join(lines)))
        chances = [logprobs[self.tokenizer.encode(str(i))[-1]].exp().item() for i in range(len(levels))]
        return [chance / sum(chances) for chance in chances], sum(chances)


class OpenAIDecisionsModel(SystemOneModel):
    """A server of ``/v1/decisions``; it refuses questions with ``refused`` in them."""

    refused = "\0"

    def answer(self, path: str, body: Any) -> Any:
        if path == "/v1/models":
            return super().answer(path, body)
        if path != "/v1/decisions":
            raise NotImplementedError
        return {
            "model": body["model"],
            "answers": [self.one(body["input"], question) for question in body["questions"]],
        }

    def one(self, material: str, question: Any) -> Any:
        if self.refused in question["instructions"]:
            return {"type": "refusal", "name": question["name"]}
        levels = [level["description"] for level in question["levels"]]
        shares, _ = self.decide(material, question["instructions"], levels)
        listed = [{"label": str(i), "value": i, "probability": share} for i, share in enumerate(shares)]
        return {"type": "score", "name": question["name"], "score": 0.0, "confidence": 1.0, "probabilities": listed}


def list_of(values: Any) -> list[Any]:
    """The values of a tensor."""
    return list(values.tolist())


def as_events(answer: Any) -> bytes:
    """An answer of chat completions as a stream of events, its message in two pieces."""
    choice = answer["choices"][0]
    message = choice.get("message") or {"content": "x"}
    first = {**choice, "delta": {"content": message["content"][:1]}}
    first.pop("message", None)
    events = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None}]},
        {"choices": [first]},
        {"choices": [{"index": 0, "delta": {"content": message["content"][1:]}, "finish_reason": "length"}]},
        {"choices": [], "usage": {}},
    ]
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
