"""Attention over short rows on a CPU as two batched products, with the heads that share keys and values side by side.

torch's fused kernel reads a mask slowly on a CPU and its backward more slowly still: forward and backward of four rows of 70
tokens behind a prefix of 75 take 4.6 ms with it and 0.9 ms so in bfloat16, 2.7 and 1.7 ms in float32 (SmolLM2-135M's shape, two
cores with AVX512-BF16). Above MOST_SCORES the products no longer stay in the cache and the fused kernel wins, so it keeps the
long rows. Scores and probabilities are rounded to the student's precision, as transformers' own `eager` attention rounds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

NAME = "mind_short_rows"
MOST_SCORES = 2_000_000  # rows * heads * tokens * keys, kept for backward: 4 MB a layer in bfloat16

SPECIAL = ("position_bias", "softcap", "s_aux", "cache")  # what some models add to attention is left to transformers


@contextmanager
def short_rows(core: Any) -> Iterator[None]:
    """While it lasts, the model `core` (transformers, with torch's fused attention, on a CPU) attends by `attend`.

    Not with gradient checkpointing: its layers run again in backward, when this has ended.
    """
    config = core.config
    if config._attn_implementation != "sdpa" or core.device.type != "cpu" or core.is_activation_checkpointing:
        yield
        return
    _register()
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [R, H, T, D], key and value [R, G, S, D], mask bool [R, 1, T, S] or None (causal).

    Returns the mixed values [R, T, H, D], and None where other implementations return the weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows, heads, tokens, width = query.shape
    groups, keys = key.shape[1:3]
    special = dropout or value.shape[-1] != width or any(kwargs.get(name) is not None for name in SPECIAL)
    if special or rows * heads * tokens * keys > MOST_SCORES:
        whole: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return whole
    if attention_mask is None:
        attention_mask = torch.ones(tokens, keys, dtype=torch.bool).tril(keys - tokens).expand(rows, 1, tokens, keys)
    # the group's heads stand one after another along the tokens: one product for all of them
    stacked = query.reshape(rows * groups, -1, width) * (scaling or width**-0.5)
    hidden = torch.zeros(attention_mask.shape, dtype=query.dtype).masked_fill_(
        ~attention_mask, torch.finfo(query.dtype).min
    )
    bias = hidden.unsqueeze(2).expand(rows, groups, heads // groups, tokens, keys).reshape(rows * groups, -1, keys)
    scores = torch.baddbmm(bias, stacked, key.reshape(rows * groups, keys, width).transpose(1, 2))
    mixed = torch.bmm(scores.softmax(-1), value.reshape(rows * groups, keys, width))
    return mixed.view(rows, heads, tokens, width).transpose(1, 2).contiguous(), None


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
