"""The output head on the few tokens that need it, in chunks: [tokens, V] is never held at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 1 << 24  # logits in memory at a time: 64 MB in float32
BLOCK_ELEMENTS = 1 << 20  # of them in float32 at a time, where they are made into losses: 4 MB


def token_losses(head: torch.nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    """-log P(target) of each token, fp32 [N], from its last hidden state [N, D]; gradients flow to `hidden` and the head.

    A frozen head's gradient is a scalar a token times (softmax - one-hot) W, so that row is made while the logits are at
    hand and the backward pass is one multiplication (the fold that Liger's fused cross entropy does on GPUs). A head that
    is trained itself is run again chunk by chunk in backward.
    """
    weight, bias = head.weight, getattr(head, "bias", None)
    assert isinstance(weight, Tensor)
    size = max(16, CHUNK_ELEMENTS // weight.shape[0])
    if not torch.is_grad_enabled() or not hidden.requires_grad:
        pieces = zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
        return torch.cat([_losses(linear(h, weight, bias), t, slopes=False) for h, t in pieces])
    if weight.requires_grad:
        pieces = zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
        return torch.cat([checkpoint(_trained_head, head, h, t, use_reentrant=False) for h, t in pieces])
    losses: Tensor = _FrozenHead.apply(hidden, weight, bias, targets, size)  # type: ignore[no-untyped-call]
    return losses


def log_probabilities(head: Any, hidden: Tensor) -> Tensor:
    """log P over the vocabulary in fp32: [..., V] for hidden states [..., D]."""
    return torch.log_softmax(head(hidden).float(), dim=-1)


def _trained_head(head: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(head(hidden).float(), targets, reduction="none")


def _losses(logits: Tensor, targets: Tensor, slopes: bool) -> Tensor:
    """Losses [N]. With `slopes` the logits are overwritten by softmax - one-hot, the slope of each loss.

    A few rows at a time, so that the float32 passes over them stay in the processor's cache: on 260 tokens and 49,152 words the
    two take 28 ms that took 66 (with the gradient) and 4 ms that took 38 (without), on two cores in bfloat16.
    """
    rows = max(1, BLOCK_ELEMENTS // logits.shape[-1])
    losses = []
    for block, target in zip(torch.split(logits, rows), torch.split(targets.unsqueeze(-1), rows), strict=True):
        log_p = torch.log_softmax(block.float(), dim=-1)
        losses.append(-log_p.gather(-1, target).squeeze(-1))
        if slopes:
            block.copy_(log_p.exp_().scatter_add_(-1, target, log_p.new_full(target.shape, -1.0)))
    return torch.cat(losses)


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, size: int) -> Tensor:
        losses, rows = [], []
        for h, t in zip(torch.split(hidden, size), torch.split(targets, size), strict=True):
            logits = linear(h, weight, bias)
            losses.append(_losses(logits, t, slopes=True))
            rows.append(logits @ weight)
        ctx.save_for_backward(torch.cat(rows))
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None, None]:
        (rows,) = ctx.saved_tensors
        return (slope.unsqueeze(-1) * rows).to(rows.dtype), None, None, None, None
