"""Batch to View: the one place that sees full logits [*, V], and that decides what is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mind_distill.student.attention import short_rows
from mind_distill.student.batching import Batch
from mind_distill.student.head import log_probabilities, token_losses
from mind_distill.student.sharing import Packed, Row, make_rows, pack, prefix_lengths

# model types whose shared reading is tested against the plain
SHARING = ("llama", "qwen2", "qwen3", "mistral", "smollm3")


@dataclass(frozen=True)
class View:
    """What a method may see of the student's reading. What was not run is 0, and False in `ran`."""

    nll: Tensor  # [B, K] mean over the trained tokens, fp32
    token_nll: Tensor  # [B, K, T], 0 outside the trained tokens
    answer_logprobs: Tensor | None  # [B, K, A, V] fp32 at temperature 1, None unless asked
    answer_mask: Tensor  # [B, A]
    ran: Tensor  # [B, K]
    work: Work


class Work(NamedTuple):
    """Tokens that went through the model: all of them, the padding among them, and what reading each text alone would take."""

    computed: int = 0
    padding: int = 0
    alone: int = 0

    def plus(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(self, other, strict=True)))

    def since(self, earlier: Work) -> Work:
        return Work(*(a - b for a, b in zip(self, earlier, strict=True)))


class _Prefix(NamedTuple):
    """Keys and values of each problem's common prefix, layer by layer, padded on the right: [B, heads, P, width] each."""

    lengths: list[int]
    cache: tuple[Tensor, ...]  # key, value, key, value, ...

    def detached(self) -> _Prefix:
        return _Prefix(self.lengths, tuple(tensor.detach() for tensor in self.cache))


def read(
    model: Any,
    batch: Batch,
    grad: Tensor | None,
    run: Tensor | None,
    answers: bool,
    micro_batch: int,
    share: bool = True,
) -> View:
    """The student's losses on the batch: rows of `grad` with a graph, the other rows of `run` without (None: all valid).

    The prompt of a problem's texts is run once where that pays, and a text that begins like another runs only its end. At
    most `micro_batch` rows hold activations at any time: further slices with gradient are run again in backward. The slice
    that keeps its graph is made last, because backward visits and frees it first. Without `share` each text is read whole, so
    that the number of slices depends on the masks alone (sharding needs it).
    """
    grad = batch.valid if grad is None else grad & batch.valid
    run = batch.valid if run is None else (run | grad) & batch.valid
    graph = torch.is_grad_enabled()
    shares = share and shares_prefixes(model)
    lengths = prefix_lengths(batch, run) if shares else [0] * len(batch.lessons)
    trained = bool(grad.any()) and graph
    with torch.set_grad_enabled(trained):
        prefix = _read_prefix(model, batch, run, lengths)
    gathered = _Gathered(batch)
    if max(lengths):
        gathered.work = Work(max(lengths) * len(lengths), max(lengths) * len(lengths) - sum(lengths))
    with torch.no_grad():
        quiet = run & ~grad if graph else run
        frozen = prefix.detached()
        for rows in _slices(make_rows(batch, quiet, lengths, shares), micro_batch):
            piece = pack(batch, rows, lengths)
            gathered.add(piece, *_forward(model, piece, answers, *frozen.cache))
    slices = _slices(make_rows(batch, grad, lengths, shares), micro_batch) if trained else []
    for i, rows in enumerate(slices, 1):
        piece = pack(batch, rows, lengths)
        if i < len(slices):
            read_again = checkpoint(_forward, model, piece, answers, *prefix.cache, use_reentrant=False)
            gathered.add(piece, *read_again)
        else:
            gathered.add(piece, *_forward(model, piece, answers, *prefix.cache))
    return gathered.view(run)


def shares_prefixes(model: Any) -> bool:
    """Whether texts of this model may share what they have in common: a tested shape, with its cache in use and whole.

    A sliding window drops keys from the cache and counts in places of the row; gradient checkpointing drops the cache.
    """
    core = _core(model)
    windowed = getattr(core.config, "sliding_window", None) is not None
    return core.config.model_type in SHARING and not windowed and not core.is_activation_checkpointing


def _core(model: Any) -> Any:
    """The causal language model inside PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _slices(rows: Sequence[Row], micro_batch: int) -> list[Sequence[Row]]:
    return [rows[i : i + micro_batch] for i in range(0, len(rows), micro_batch)]


def _read_prefix(model: Any, batch: Batch, run: Tensor, lengths: list[int]) -> _Prefix:
    """Run each problem's common prefix. Padding stands on the right, where no causal token sees it."""
    longest = max(lengths)
    if not longest:
        return _Prefix(lengths, ())
    from transformers import DynamicCache

    first = run.int().argmax(-1)  # [B] any text of the problem that is read
    ids = batch.input_ids[torch.arange(len(first), device=first.device), first, :longest]
    core = _core(model)
    cache = DynamicCache(config=core.config)
    with short_rows(core):
        core.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
    return _Prefix(lengths, tuple(tensor for layer in cache.layers for tensor in (layer.keys, layer.values)))


def _forward(model: Any, piece: Packed, answers: bool, *prefix: Tensor) -> tuple[Tensor, Tensor | None]:
    """Losses of the piece's trained tokens [N], and the log-probabilities of each text's answer tokens [X, A, V] if asked."""
    with short_rows(_core(model)):
        hidden = _hidden_states(model, piece, prefix).flatten(0, 1)  # [R * T, D]
    head = _core(model).get_output_embeddings()
    losses = token_losses(head, hidden[piece.source], piece.targets)
    return losses, log_probabilities(head, hidden[piece.answers]) if answers else None


def _hidden_states(model: Any, piece: Packed, prefix: Sequence[Tensor]) -> Tensor:
    """The last layer's states [R, T, D]. Without a mask the rows are plain causal ones, padded on the right."""
    core = _core(model)
    if piece.mask is None:
        plain: Tensor = core.base_model(input_ids=piece.ids, use_cache=False).last_hidden_state
        return plain
    from transformers import DynamicCache

    layers = zip(prefix[::2], prefix[1::2], strict=True)
    cache = DynamicCache([(key[piece.problems], value[piece.problems]) for key, value in layers]) if prefix else None
    shared: Tensor = core.base_model(
        input_ids=piece.ids,
        attention_mask=piece.mask,
        position_ids=piece.positions,
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state
    return shared


class _Gathered:
    """Results of the slices, put where they belong in the batch."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.token_nll = torch.zeros(batch.target_mask.shape, device=batch.input_ids.device)
        self.answers: Tensor | None = None
        self.work = Work()

    def add(self, piece: Packed, losses: Tensor, logprobs: Tensor | None) -> None:
        self.token_nll = self.token_nll.index_put(piece.place, losses[piece.taken])
        self.work = self.work.plus(Work(piece.ids.numel(), piece.padding))
        if logprobs is not None:
            if self.answers is None:
                self.answers = logprobs.new_zeros(*self.batch.valid.shape, *logprobs.shape[1:])
            self.answers = self.answers.index_put((piece.texts[:, 0], piece.texts[:, 1]), logprobs)

    def view(self, ran: Tensor) -> View:
        trained = self.batch.target_mask.sum(-1).clamp_min(1)
        work = self.work._replace(alone=int(self.batch.lengths[ran].sum()))
        nll = self.token_nll.sum(-1) / trained
        return View(nll, self.token_nll, self.answers, self.batch.answer_mask, ran, work)
