"""What a judge needs and lacks: a library, an address, a folder to write to; one line each, whose remedy works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.commands import Result, esrp_judge, refused, typed, without_waits
from tests.helpers.hub import hub_of

Weights = dict[str, torch.Tensor]

FEW = ("--metrics", "fluency", "--limit", "2", "--answer-form", "none", "--min-mass", "0", "--no-report")


def last_line(result: Result) -> str:
    """The error, which is one line behind those of progress, and no fault of ours."""
    line = without_waits(result.stderr)[-1]
    assert line.startswith("esrp-judge: ") and "internal error" not in line
    return line


@pytest.mark.parametrize(
    ("method", "library"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}, "gptqmodel"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}, "optimum"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "compressed-tensors"),
    ],
)
def test_quantised_weights_without_their_library_name_it(
    nameless: Path, tmp_path: Path, method: dict[str, object], library: str
) -> None:
    judge = Path(shutil.copytree(nameless, tmp_path / "judge"))
    config = json.loads((judge / "config.json").read_text(encoding="utf-8"))
    (judge / "config.json").write_text(json.dumps({**config, "quantization_config": method}), encoding="utf-8")
    how = ("score", "--judge", judge, "--run", tmp_path / "run", *FEW)
    result = typed(*how, cwd=tmp_path)
    line = last_line(result)
    assert result.returncode == 3 and "quantised" in line and f"pip install {library}" in line.replace("-U ", "")
    (judge / "config.json").write_text(json.dumps(config), encoding="utf-8")  # the same model without quantisation
    assert typed(*how[:3], "--run", tmp_path / "other", *FEW, cwd=tmp_path).returncode == 0


DOWN = "model.layers.0.mlp.down_proj.weight"


def without(weights: Weights) -> None:
    del weights[DOWN]


def narrower(weights: Weights) -> None:
    weights[DOWN] = weights[DOWN][:-1].contiguous()


def without_a_layer(weights: Weights) -> None:
    for name in [name for name in weights if "layers.3." in name]:
        del weights[name]


def eight_bits(weights: Weights) -> None:
    scale = weights[DOWN].abs().amax(1) / 127
    weights[DOWN], weights[f"{DOWN}_scale"] = (weights[DOWN] / scale[:, None]).to(torch.int8), scale


def with_a_bias(weights: Weights) -> None:
    weights["model.layers.0.self_attn.q_proj.bias"] = torch.ones(len(weights["model.layers.0.self_attn.q_proj.weight"]))


def with_parts_for_pictures(weights: Weights) -> None:
    weights["vision_tower.patch_embed.weight"] = torch.ones(3, 3)


@pytest.mark.parametrize(
    ("change", "method", "said"),
    [
        (without, None, f"weights are missing or of another shape ({DOWN}); fetch it again"),
        (narrower, None, f"weights are missing or of another shape ({DOWN}); fetch it again"),
        (without_a_layer, None, "weights are missing or of another shape (11, one is model.layers.3."),
        (eight_bits, None, f"weights that config.json has no place for ({DOWN}_scale)"),
        (with_a_bias, None, "weights that config.json has no place for (model.layers.0.self_attn.q_proj.bias)"),
        (eight_bits, {"quant_method": "own"}, "quantised by 'own', which transformers does not know"),
        (lambda weights: None, {"quant_method": "bitsandbytes"}, "quantised by 'bitsandbytes'"),
    ],
)
def test_a_model_with_a_weight_that_would_be_random_or_passed_over_is_no_judge(
    nameless: Path,
    tmp_path: Path,
    change: Callable[[Weights], None],
    method: dict[str, object] | None,
    said: str,
) -> None:
    judge = changed(nameless, tmp_path / "judge", change)
    config = json.loads((judge / "config.json").read_text(encoding="utf-8"))
    (judge / "config.json").write_text(json.dumps({**config, "quantization_config": method}), encoding="utf-8")
    result = typed("score", "--judge", judge, "--run", tmp_path / "run", *FEW, cwd=tmp_path)
    assert result.returncode == 3 and said in last_line(result)
    assert len(without_waits(result.stderr)) == 2  # that, and what is scored; nothing of a library's
    assert not list((tmp_path / "run").glob("judgments/*"))


def test_a_tokenizer_of_another_model_is_told_as_such(nameless: Path, tmp_path: Path) -> None:
    def of_fewer_tokens(weights: Weights) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            weights[name] = weights[name][:1000].clone()

    judge = changed(nameless, tmp_path / "judge", of_fewer_tokens)
    config = json.loads((judge / "config.json").read_text(encoding="utf-8"))
    (judge / "config.json").write_text(json.dumps({**config, "vocab_size": 1000}), encoding="utf-8")
    result = typed("score", "--judge", judge, "--run", tmp_path / "run", *FEW, cwd=tmp_path)
    assert result.returncode == 2 and "its tokenizer writes token" in (line := last_line(result))
    assert "its model has 1000" in line and "name a folder with all files of one" in line


def test_a_model_may_have_parts_that_a_judge_does_not_need(nameless: Path, tmp_path: Path) -> None:
    scores = []
    for judge in (nameless, changed(nameless, tmp_path / nameless.name, with_parts_for_pictures)):
        run = tmp_path / f"run-{len(scores)}"
        result = typed("score", "--judge", judge, "--run", run, *FEW, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "transformers" not in result.stderr
        scores.append((run / "scores.csv").read_text(encoding="utf-8"))
    assert scores[0] == scores[1]


def changed(judge: Path, folder: Path, change: Callable[[Weights], None]) -> Path:
    """A copy of a model whose weights are changed."""
    shutil.copytree(judge, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("wrong", ["{host}/", "htps://{host}"])
def test_an_endpoint_that_is_no_address_is_told_as_such(nameless: Path, tmp_path: Path, wrong: str) -> None:
    with hub_of("org/model", nameless) as address:
        host = address.removeprefix("http://")
        about = {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        how = ("score", "--judge", "org/model", "--run", tmp_path / "run", *FEW)
        result = esrp_judge(*how, cwd=tmp_path, HF_ENDPOINT=wrong.format(host=host), **about)
        refused(result, f"HF_ENDPOINT={wrong.format(host=host)}", "https://", f"set HF_ENDPOINT=https://{host}")
        assert esrp_judge(*how, cwd=tmp_path, HF_ENDPOINT=address, **about).returncode == 0


def test_auto_says_that_the_endpoint_is_wrong_and_not_that_no_hub_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("source,character,scenario,question_r1,answer_r1\nm,c,1,a,b\n", encoding="utf-8")
    about = {"HF_ENDPOINT": "hf-mirror.com", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    result = esrp_judge("score", tmp_path / "a.csv", "--run", tmp_path / "run", cwd=tmp_path, **about)
    refused(result, "HF_ENDPOINT=hf-mirror.com", "set HF_ENDPOINT=https://hf-mirror.com")
    found = esrp_judge("doctor", "--json", cwd=tmp_path, **about)
    assert "HF_ENDPOINT=hf-mirror.com" in str(json.loads(found.stdout)["problem"])


def test_a_hub_cache_that_cannot_be_written_is_named_with_the_variable(nameless: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with hub_of("org/model", nameless) as address:
        about = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
        how = ("score", "--judge", "org/model", "--run", tmp_path / "run", *FEW)
        result = esrp_judge(*how, cwd=tmp_path, HF_HOME=str(tmp_path / "file" / "hub"), **about)
        assert result.returncode == 3
        line = last_line(result)
        assert (
            str(tmp_path / "file" / "hub") in line and "Not a directory" in line and "set HF_HOME to a folder" in line
        )
        assert esrp_judge(*how, cwd=tmp_path, HF_HOME=str(tmp_path / "hub"), **about).returncode == 0


@pytest.mark.parametrize("variable", ["ESRP_CACHE", "HOME"])
def test_a_home_or_cache_that_cannot_be_written_is_named_with_the_variable(tmp_path: Path, variable: str) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    own = {"ESRP_CACHE": "", "XDG_CACHE_HOME": "", variable: str(tmp_path / "file" / "cache")}
    how = ("score", "--judge", "stand-in", "--run", tmp_path / "run", *FEW)
    result = esrp_judge(*how, cwd=tmp_path, **own)
    line = last_line(result)
    assert result.returncode == 3 and str(tmp_path / "file" / "cache") in line and "set ESRP_CACHE to a folder" in line
    assert last_line(esrp_judge("doctor", cwd=tmp_path, **own)) == line
    own["ESRP_CACHE"] = str(tmp_path / "cache")
    assert esrp_judge(*how, cwd=tmp_path, **own).returncode == 0
    assert (tmp_path / "cache").is_dir()
