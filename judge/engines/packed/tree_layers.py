"""How a model of transformers is led along a tree: each kind of layer by its own way.

A model's code stays as it is. Its layers call functions of the library for what looks at more than one token, and for
the time of a pass those are ours. What is not in this table looks at one token at a time, or is not known; the check
on loading tells (``PackedEngine.verify``).

| layer | what it calls | becomes |
|---|---|---|
| attention: full, windowed, chunked, capped, with sinks, latent | the attention interface | ``TreeAttention.attend`` |
| short convolution, and that of a gated delta net | ``causal_conv1d_fn`` | ``TreeRecurrence.convolve`` |
| gated delta net | ``torch_chunk_gated_delta_rule`` | ``TreeRecurrence.gated_delta_rule`` |
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from judge.engines.packed.tree_attention import Kind, Rule, TreeAttention
from judge.engines.packed.tree_pass import TreePass
from judge.engines.packed.tree_recurrence import TreeRecurrence

NAME = "esrp_tree"
"""The name under which transformers knows our attention."""


FUNCTIONS: dict[str, Callable[[TreeRecurrence, Any], Callable[..., Any]]] = {
    "causal_conv1d_fn": lambda recurrence, _: recurrence.convolve,
    "torch_chunk_gated_delta_rule": lambda recurrence, own: partial(recurrence.gated_delta_rule, chunked=own),
}
"""What stands for a function in the module of a model's code, given that function."""


class _Mask:
    """Goes the way of a mask through a model and carries the model's rule for masks."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule


def _mask(*_: Any, mask_function: Rule, **__: Any) -> _Mask:
    """The mask as transformers asks for it, in place of a matrix."""
    return _Mask(mask_function)


def _attention(
    tree: TreeAttention,
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it.

    Raises:
        NotImplementedError: the layer was given another mask than the library's.
    """
    if not isinstance(attention_mask, _Mask):
        raise NotImplementedError("attention with a mask of its own")
    kind = Kind(attention_mask.rule, scaling if scaling is not None else query.shape[-1] ** -0.5, softcap, s_aux)
    layer: Any = module.layer_idx
    return tree.attend(query, key, value, kind, layer).transpose(1, 2).contiguous(), None


AttentionMaskInterface.register(NAME, _mask)


@contextmanager
def led_along(model: Any, tree: TreePass) -> Iterator[dict[str, Any]]:
    """While this lasts, a model computes a pass over a tree; gives what to call it with besides its tokens."""
    config = model.config.get_text_config()
    numbered = [part for part in model.get_decoder().modules() if isinstance(getattr(part, "layer_idx", None), int)]
    attention = TreeAttention(tree, max((part.layer_idx for part in numbered), default=-1), model.dtype)
    AttentionInterface.register(NAME, partial(_attention, attention))
    recurrence = TreeRecurrence(tree)

    def enter(layer: Any, *_: Any) -> None:
        recurrence.layer = layer.layer_idx

    with ExitStack() as stack:

        def put(owner: Any, name: str, value: Any) -> None:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)

        put(config, "_attn_implementation", NAME)
        for code in {sys.modules[type(part).__module__] for part in model.modules()}:
            for name, ours in FUNCTIONS.items():
                if own := getattr(code, name, None):
                    put(code, name, ours(recurrence, own))
        for part in numbered:
            stack.callback(part.register_forward_pre_hook(enter).remove)
        stack.enter_context(_last_mlp_at(model, tree.last))
        # A mask of ones says that no token is padding; without one the library takes places that begin anew for texts
        # that do not belong together.
        ones = torch.ones((1, tree.computed.tokens), dtype=torch.long, device=tree.device)
        yield {"position_ids": tree.positions, "attention_mask": ones}


@contextmanager
def _last_mlp_at(model: Any, places: Tensor) -> Iterator[None]:
    """While this lasts, the last layer's MLP is computed at some places of the sequence and is 0 elsewhere.

    This changes nothing that is read: an MLP treats each token by itself, and of the last layer only these places are
    read. A model whose last layer has something else there, such as experts, is left as it is.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    mlp: Any = getattr(layers[-1], "mlp", None) if layers else None
    if not type(mlp).__name__.endswith("MLP") or hasattr(mlp, "experts"):
        yield
        return
    forward = mlp.forward

    def at_places(hidden: Tensor) -> Tensor:
        return torch.zeros_like(hidden).index_copy_(1, places, forward(hidden[:, places]))

    mlp.forward = at_places
    try:
        yield
    finally:
        mlp.forward = forward
