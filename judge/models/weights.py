"""A model of transformers with every weight as its files have it, or none.

Where a weight is missing transformers draws one at random; where it knows no place for one, such as the scales of a
quantisation that the configuration does not tell, it passes over it. It warns and goes on, and whatever the model says
then means nothing. Here both are errors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.quantizers.auto import AutoHfQuantizer
from transformers.utils import logging


def load_model(folder: Path, dtype: torch.dtype | str, **how: Any) -> Any:
    """The model in a folder, with all of its weights.

    Args:
        folder: with configuration and safetensors; code in it is never run.
        dtype: the precision of the weights, or ``auto`` for that of the files.
        how: more for ``from_pretrained``, such as ``gguf_file``.

    Raises:
        ValueError: a weight is missing, of another shape or not read, or the quantisation is not known.
        ImportError: a library that reads the quantisation is missing.
        OSError, RuntimeError, KeyError, SafetensorError: transformers cannot load it.
    """
    with quiet():
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named here
            **how,
        )
        quantisation = getattr(model.config, "quantization_config", None)
        if isinstance(quantisation, dict) and not AutoHfQuantizer.supports_quant_method(quantisation):
            method = quantisation.get("quant_method")
            raise ValueError(
                f"its weights are quantised by {method!r}, which transformers does not know; choose the same model "
                "without quantisation"
            )
    other_shape = [name for name, *_ in found["mismatched_keys"]]
    if lost := sorted({*found["missing_keys"], *other_shape}):
        raise ValueError(f"weights are missing or of another shape ({_some(lost)}); fetch it again")
    if unread := _of_own_modules(model, found["unexpected_keys"]):
        raise ValueError(
            f"its files have weights that config.json has no place for ({_some(unread)}); fetch it again, or choose "
            "the same model without quantisation"
        )
    return model


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)}, one is {names[0]}"


def _of_own_modules(model: PreTrainedModel, names: Collection[str]) -> list[str]:
    """Which of some weights stand beside one that the model has, so that it is not whole without them.

    Others belong to parts that a judge does not need: to what sees pictures, or writes several tokens at once.
    """
    own = set(model.state_dict())
    modules = {name.removesuffix(".weight") for name in own if name.endswith(".weight")}

    def is_beside_one(name: str) -> bool:
        return name.rpartition(".")[0] in modules or any(name[:i] in own for i, sign in enumerate(name) if sign == "_")

    prefix = f"{model.base_model_prefix}."
    return sorted(name for name in names if is_beside_one(name) or is_beside_one(prefix + name))


@contextmanager
def quiet() -> Iterator[None]:
    """Neither bars nor warnings of the loader's: what they warn of is an error here."""
    from transformers import modeling_gguf_pytorch_utils as loader

    logging.disable_progress_bar()
    verbosity, bar = logging.get_verbosity(), loader.tqdm
    logging.set_verbosity_error()
    loader.tqdm = lambda tensors, **_: tensors  # this bar asks no setting
    try:
        yield
    finally:
        loader.tqdm = bar
        logging.set_verbosity(verbosity)
