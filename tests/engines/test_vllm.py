"""A real vLLM on this machine, in this process and as a server; `make test-vllm` makes an environment that has it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` makes an environment that has it")

from judge import Options, load_judgments, score
from judge.data.dataset import Corpus
from judge.data.dialogues import example_dialogues, example_files
from judge.engines.decision_protocols import SystemOne
from judge.engines.packed.engine import PackedEngine
from judge.engines.served_model import connect
from judge.engines.server import ServerEngine
from judge.engines.vllm import VllmEngine
from judge.errors import EngineError
from judge.prompting.prompt_tree import PromptTree, PromptWriter
from judge.prompting.rubric import load_rubric
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.scoring.judge import judgment
from tests.helpers import real_models
from tests.helpers.chatanime import LEVELS, METRICS
from tests.helpers.vllm_server import free_port, kill, start_server

pytestmark = pytest.mark.vllm

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
DIALOGUES = 40
"""In bfloat16 a CPU makes 8 judgments a second."""


@pytest.fixture(scope="module")
def writer(tokenizer: JudgeTokenizer) -> PromptWriter:
    return PromptWriter(load_rubric("zh"), tokenizer)


@pytest.fixture(scope="module")
def trees(writer: PromptWriter, request: pytest.FixtureRequest) -> list[PromptTree]:
    """Dialogues of ChatAnime, or where it is not there those of the example."""
    try:
        files = [request.getfixturevalue("shared_data") / "chatanime"]
    except pytest.skip.Exception:
        files = example_files()
    return [writer.dialogue(dialogue, METRICS) for dialogue in Corpus(files, limit=DIALOGUES)]


@pytest.fixture(scope="module")
def engine(stand_in: Path) -> VllmEngine:
    return VllmEngine(stand_in, "float32")


def scores(logprobs: Any) -> np.ndarray:
    """Shape (dialogues, metrics)."""
    return np.array([[judgment(leaf[None], LEVELS).score for leaf in leaves] for leaves in logprobs])


@pytest.fixture(scope="module")
def packed(stand_in: Path, trees: list[PromptTree], writer: PromptWriter) -> np.ndarray:
    return scores(PackedEngine.load(stand_in).level_logprobs(trees, writer.level_ids))


def test_two_engines_give_the_same_scores(
    engine: VllmEngine, packed: np.ndarray, trees: list[PromptTree], writer: PromptWriter
) -> None:
    found = scores(engine.level_logprobs(trees, writer.level_ids))
    assert found.std(axis=0).min() > 0.1
    assert np.abs(found - packed).max() <= 1e-4
    assert engine.report["cached_tokens"] > 0.8 * engine.report["prompt_tokens"]


def test_it_writes_what_the_packed_engine_writes(engine: VllmEngine, tokenizer: JudgeTokenizer, stand_in: Path) -> None:
    asking = PromptWriter(load_rubric("zh"), tokenizer, "question")
    trees = [asking.questions(dialogue, ["为什么？", "怎么？"]) for dialogue in example_dialogues()[:2]]
    found = engine.generate(trees, 8)
    assert found == PackedEngine.load(stand_in).generate(trees, 8)
    assert {len(ids) for texts in found for ids in texts} == {8}


def test_a_level_or_a_slot_that_is_shifted_by_one_would_be_noticed(
    engine: VllmEngine, packed: np.ndarray, trees: list[PromptTree], writer: PromptWriter
) -> None:
    some = trees[:5]
    levels = writer.level_ids[1:] + writer.level_ids[:1]
    assert np.abs(scores(engine.level_logprobs(some, levels)) - packed[:5]).max() > 0.1
    early = [
        PromptTree(t.root, t.character, t.opening, t.dialogue, tuple(leaf[:-1] for leaf in t.leaves)) for t in some
    ]
    assert np.abs(scores(engine.level_logprobs(early, writer.level_ids)) - packed[:5]).max() > 0.01


def in_its_work(engine: VllmEngine, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends a signal to vLLM's own process as the tenth prompt is handed over, so that it can answer no later one.

    Only to this process: an engine that is started anew is another object.
    """
    (process,) = engine._processes
    vllm_engine, handed_over = engine._llm.llm_engine, count(1)
    add_request = vllm_engine.add_request

    def watched(*arguments: Any, **named: Any) -> Any:
        if next(handed_over) == 10:
            os.kill(process.pid, number)
        return add_request(*arguments, **named)

    monkeypatch.setattr(vllm_engine, "add_request", watched)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_an_engine_that_is_killed_or_hangs_is_started_anew_and_loses_nothing(
    engine: VllmEngine,
    packed: np.ndarray,
    trees: list[PromptTree],
    writer: PromptWriter,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine.patience = 30.0
    before = engine.report["restarts"]
    in_its_work(engine, number, monkeypatch)
    found = scores(engine.level_logprobs(trees, writer.level_ids))
    assert engine.report["restarts"] == before + 1
    assert np.abs(found - packed).max() <= 1e-4


def test_an_engine_that_dies_again_when_started_anew_ends_the_run(  # the last one with this engine
    engine: VllmEngine, trees: list[PromptTree], writer: PromptWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    (process,) = engine._processes
    process.kill()
    process.join()
    with monkeypatch.context() as patched:
        patched.setattr(engine, "_start", lambda: None)  # so that it stays dead
        with pytest.raises(EngineError, match="vLLM died, also when started anew") as error:
            engine.level_logprobs(trees[:2], writer.level_ids)
    assert error.value.exit_code == 3


def test_vllms_processes_end_with_the_one_that_is_killed(tmp_path: Path) -> None:
    command = esrp_judge("--judge", "stand-in", "--engine", "vllm", "--run", tmp_path / "run", "--metrics", "fluency")
    session = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while session.poll() is None and not list((tmp_path / "run").glob("judgments/part-*")):
        time.sleep(0.05)
    assert processes_of(session.pid)
    session.kill()
    session.wait()
    end = time.monotonic() + 30
    while processes_of(session.pid):
        assert time.monotonic() < end, "vLLM's processes go on"
        time.sleep(0.1)


def processes_of(session: int) -> list[str]:
    """The titles of vLLM's processes in a session: its engine, and what that started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            title, _, rest = path.read_text("utf-8", "replace").partition("(")[2].rpartition(")")
            state, _, _, its = rest.split()[:4]
            found += [title] if title.startswith("VLLM") and state != "Z" and int(its) == session else []
    return found


@pytest.fixture(scope="module")
def steady(
    stand_in: Path, trees: list[PromptTree], writer: PromptWriter, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model whose scores hardly feel the rounding of bfloat16: the level follows the mean of a sign of each token.

    The stand-in itself would not do: its sharp random attention turns a rounding into another score.
    """
    folder = tmp_path_factory.mktemp("steady")
    shutil.copytree(stand_in, folder, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(stand_in, dtype=torch.float32)
    prompts = [torch.tensor(tree.prompt(0)) for tree in trees]
    draws = [
        torch.randn(model.config.vocab_size, generator=torch.Generator().manual_seed(n)).sign() for n in range(200)
    ]
    means = [torch.stack([signs[prompt].mean() for prompt in prompts]) for signs in draws]
    best = min(range(200), key=lambda n: float(means[n].mean().abs() / means[n].std()))
    with torch.no_grad():
        for weight in (model.model.embed_tokens.weight, model.lm_head.weight):
            weight.zero_()
        model.model.embed_tokens.weight[:, 0], model.model.embed_tokens.weight[:, 1] = 2.0, draws[best]
        for layer in model.model.layers:
            for part in (layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp.down_proj):
                part.weight.zero_()
        first = model.model.layers[0].self_attn
        first.v_proj.weight.zero_()
        first.v_proj.weight[0, 1] = 1.0
        first.o_proj.weight[2, 0] = 0.2 / means[best].std()  # signs are about 5 after the first norm
        model.lm_head.weight[:, 0] = -2.0
        for level, ids in enumerate(writer.level_ids, start=1):
            model.lm_head.weight[list(ids), 0] = 0.0
            model.lm_head.weight[list(ids), 2] = 0.08 * (level - 3)
    model.save_pretrained(folder)
    return folder


def test_two_engines_give_the_same_scores_in_bfloat16(
    steady: Path, trees: list[PromptTree], writer: PromptWriter
) -> None:
    packed = PackedEngine(AutoModelForCausalLM.from_pretrained(steady, dtype=torch.bfloat16).eval())
    ours = scores(packed.level_logprobs(trees, writer.level_ids))
    other = VllmEngine(steady, "bfloat16")
    found, shifted = (scores(other.level_logprobs(trees, ids)) for ids in (writer.level_ids, writer.level_ids[::-1]))
    spread = ours.std(axis=0).min()
    assert spread > 0.3
    assert np.abs(found - ours).max() <= 0.02 * spread
    assert np.abs(shifted - ours).max() > 0.02 * spread


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(stand_in: Path, port: int) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """The server, which a test may put another in the place of."""
    running = {"it": start_server(stand_in, port)}
    yield running
    if running["it"].poll() is None:
        kill(running["it"])


def esrp_judge(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "judge", "score", *map(str, arguments)]


def test_the_command_scores_by_vllm_in_process(stand_in: Path, tmp_path: Path) -> None:
    command = esrp_judge("--judge", "stand-in", "--engine", "vllm", "--limit", 6, "--run", tmp_path / "run")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (engine,) = json.loads((tmp_path / "run" / "manifest.json").read_text())["engines"]
    assert engine["name"] == "vllm" and 0 < engine["cached_tokens"] < engine["prompt_tokens"]
    own = score([], Options(judge="stand-in", engine="packed", limit=6, run=tmp_path / "own")).run
    difference = load_judgments(tmp_path / "run")["score"] - load_judgments(own)["score"]
    assert difference.abs().max() <= 1e-4


def test_a_real_server_gives_the_same_scores(server: object, port: int, stand_in: Path, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{port}"
    run = score([], Options(url=url, limit=6, run=tmp_path / "run")).run
    own = score([], Options(judge="stand-in", engine="packed", limit=6, run=tmp_path / "own")).run
    found = load_judgments(run)
    assert (found["score"] - load_judgments(own)["score"]).abs().max() <= 1e-4
    assert set(found["judge"]) == {"STAND-IN"}


def test_a_real_server_writes_what_the_packed_engine_writes(
    server: object, port: int, tokenizer: JudgeTokenizer, stand_in: Path
) -> None:
    asking = PromptWriter(load_rubric("zh"), tokenizer, "question")
    trees = [asking.questions(dialogue, ["为什么？", "怎么？"]) for dialogue in example_dialogues()[:2]]
    found = ServerEngine(connect(f"http://127.0.0.1:{port}")).generate(trees, 8)
    assert found == PackedEngine.load(stand_in).generate(trees, 8)


def test_a_real_server_is_asked_by_messages_too(server: object, port: int, tmp_path: Path) -> None:
    options = Options(url=f"http://127.0.0.1:{port}", protocol="chat", limit=3, run=tmp_path / "run")
    found = load_judgments(score([], options).run)
    assert found["score"].notna().all() and found["mass"].median() > 0.8
    assert set(found["judge"]) == {"tiny"}


def test_killing_the_server_and_starting_it_again_loses_nothing(
    server: dict[str, subprocess.Popen[bytes]], port: int, stand_in: Path, tmp_path: Path
) -> None:
    command = esrp_judge(
        "--url", f"http://127.0.0.1:{port}", "--run", tmp_path / "run", "--limit", 24, "--patience", 200
    )
    work = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while time.monotonic() < end and not (tmp_path / "run" / "manifest.json").is_file():
        time.sleep(0.01)
    kill(server["it"])  # at once: a quick machine has soon asked all
    server["it"] = start_server(stand_in, port)
    _, said = work.communicate(timeout=300)
    assert work.returncode == 0, said[-2000:]
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["engines"][0]["retries"] > 0
    own = score([], Options(judge="stand-in", engine="packed", limit=24, run=tmp_path / "own")).run
    assert (load_judgments(tmp_path / "run")["score"] - load_judgments(own)["score"]).abs().max() <= 1e-4


def test_a_server_that_stays_away_ends_the_run_with_how_to_go_on(  # the last one with this server
    server: dict[str, subprocess.Popen[bytes]], port: int, tmp_path: Path
) -> None:
    command = esrp_judge("--url", f"http://127.0.0.1:{port}", "--run", tmp_path / "run", "--patience", 3)
    work = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while work.poll() is None and not (tmp_path / "run" / "manifest.json").is_file():
        time.sleep(0.2)
    kill(server["it"])
    _, said = work.communicate(timeout=120)
    assert work.returncode == 3, said[-2000:]
    (line,) = [line for line in said.splitlines() if line.startswith("esrp-judge:")]
    assert "fails since 3 s" in line and "run the same command again to go on" in line


@pytest.fixture(scope="module")
def decider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small random weights under Qwen3's tokenizer: vLLM's decisions need words that the stand-in's does not have."""
    folder = tmp_path_factory.mktemp("decider")
    shutil.copytree(real_models.tokenizer_folder("qwen3"), folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=151_936, max_position_embeddings=8192, **sizes, **heads))
    model.save_pretrained(folder)
    return folder


def test_a_real_server_of_decisions_is_read_as_the_model_decides(
    decider: Path, short_rubric: Path, tmp_path: Path
) -> None:
    port = free_port()
    server = start_server(decider, port)
    try:
        options = Options(url=f"http://127.0.0.1:{port}", protocol="systemone", limit=2, run=tmp_path / "run")
        found = load_judgments(score([], replace(options, rubric=short_rubric, min_mass=0.0)).run)
        path, body = SystemOne("tiny")._asked("对话", [("流畅吗？", ["差", "中", "好"])])
        answer = httpx.post(f"http://127.0.0.1:{port}{path}", json=body).json()
    finally:
        kill(server)
    assert found["score"].between(1, 5).all() and found["mass"].between(0, 1).all() and found["score"].std() > 0
    ((levels, mass),) = SystemOne("tiny")._answered(answer, 1)
    # The prompt that vLLM 0.32 makes of a question.
    lines = ["对话", "", "Question: 流畅吗？", "0: 差", "1: 中", "2: 好", "Answer with the number of one level only."]
    tokenizer = JudgeTokenizer(decider)
    ids = tokenizer.encode(tokenizer._render([{"role": "user", "content": "\n".join(lines)}]))
    with torch.inference_mode():
        logits = PackedEngine.load(decider).model(torch.tensor([ids])).logits[0, -1]
    chances = logits.softmax(-1)[[tokenizer.encode(str(place))[0] for place in range(3)]].numpy()
    assert levels is not None and np.allclose(list(levels.values()), chances / chances.sum(), atol=1e-4)
    assert mass == pytest.approx(chances.sum(), rel=1e-3)
