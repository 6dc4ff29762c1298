"""Generation with the student on this machine: batched, sorted by length, a finished text's place given to the next.

benchmarks/evaluate_vs_lm_eval.py sets it beside another harness.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mind_distill.errors import Stopped
from mind_distill.generation.base import Generation, Prompt, Sampling, is_answered
from mind_distill.generation.draw import Draws, draw, likeliest
from mind_distill.generation.slots import BLOCK, READ, Slots, Stack, new_memory
from mind_distill.student.packing import pack_weights

PREFILL_TOKENS = 4096  # prompt tokens read at a time, whatever the batch: bounds the activations
CACHED_TOKENS = 1024  # likewise on a CPU, whose cache holds no more; where rows that are read later may join
SHARED_TOKENS = 8  # a common beginning shorter than this is not worth a pass of its own
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class _Row:
    """One text being written."""

    def __init__(self, index: int, prompt: list[int], seed: int) -> None:
        self.index, self.prompt, self.seed = index, prompt, seed
        self.written: list[int] = []
        self.finished = False
        self.draws: Draws | None = None

    def __len__(self) -> int:
        return len(self.prompt) + len(self.written)


class _Group(NamedTuple):
    """Texts being written together, and their memory; each has its last token still to read."""

    rows: list[_Row]
    memory: Slots | Stack


class LocalGenerator:
    """Generates with a causal language model of transformers; greedy, whatever its generation_config says, or drawn.

    `batch` texts are written at a time; where memory does not suffice, half as many. With `stop_at_answer` a text ends
    where its closing statement is complete; one that would have been revised later is then scored as it stands.
    """

    reads: Literal["ids", "turn"] = "ids"

    def __init__(
        self, model: Any, tokenizer: Any, batch: int, sampling: Sampling | None = None, stop_at_answer: bool = False
    ) -> None:
        self.model, self.tokenizer, self.batch = model, tokenizer, batch
        self.sampling, self.stop_at_answer = sampling, stop_at_answer
        configured = getattr(model.generation_config, "eos_token_id", None)
        listed = configured if isinstance(configured, list) else [configured]
        self.stops = {int(i) for i in [*listed, tokenizer.eos_token_id] if i is not None}

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        done: Callable[[int, Generation], None],
        seeds: Sequence[int] = (),
    ) -> None:
        """Answers every prompt; `done` hears each one as it finishes, with its index."""
        self.model.eval()
        pack_weights(self.model)
        texts = [list(prompt) for prompt in prompts if not isinstance(prompt, str)]
        assert len(texts) == len(prompts), "prompts are token ids here"
        rows = [_Row(i, ids, seeds[i] if seeds else i) for i, ids in enumerate(texts)]
        shared = _common_start(texts)
        while waiting := sorted((row for row in rows if not row.finished), key=len):
            try:
                self._write(deque(waiting), shared, max_new_tokens, done)
            except (RuntimeError, MemoryError) as problem:
                if not is_out_of_memory(problem):
                    raise
                if self.batch == 1:
                    raise Stopped(
                        f"Memory does not suffice for one text of {max(map(len, waiting))} tokens. The answers so far "
                        "are kept; free memory, or take a smaller model, and continue."
                    ) from None
                self.batch //= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _write(self, waiting: deque[_Row], shared: int, limit: int, done: Callable[[int, Generation], None]) -> None:
        """Finish all rows; those that a lack of memory cuts off keep what they have written."""
        joins = self._new_memory().joins
        prefix = self._read_prefix(waiting[0].prompt[:shared]) if shared and joins else None
        most = CACHED_TOKENS if joins and self.model.device.type == "cpu" else PREFILL_TOKENS
        alive: _Group | None = None
        while waiting or alive:
            free = self.batch - (len(alive.rows) if alive else 0)
            if waiting and (alive is None or (alive.memory.joins and free >= max(1, self.batch // 8))):
                alive = self._join(alive, self._read(self._next(waiting, free, prefix, most), prefix))
            elif alive:
                alive = self._choose(alive, self._step(alive), limit, done)

    def _next(self, waiting: deque[_Row], free: int, prefix: Slots | None, most: int) -> list[_Row]:
        """The next rows to read: as many as are free, and as fit into one pass of `most` tokens, padding included."""
        known = prefix.lengths[0] if prefix else 0
        rows = [waiting.popleft()]
        while waiting and len(rows) < free and (len(rows) + 1) * _columns(len(waiting[0]) - known) <= most:
            rows.append(waiting.popleft())
        return rows

    def _read_prefix(self, ids: Sequence[int]) -> Slots:
        """The memory of the tokens with which every prompt begins."""
        memory = self._new_memory()
        assert isinstance(memory, Slots)
        self._read_into(memory, [ids], 0)
        return memory

    def _new_memory(self) -> Slots | Stack:
        return new_memory(self.model.config, self.model.device)

    def _read(self, rows: list[_Row], prefix: Slots | None) -> _Group:
        """A group of these rows, read up to their last token."""
        known = prefix.lengths[0] if prefix else 0
        tails = [[*row.prompt, *row.written][known:-1] for row in rows]
        memory = prefix.repeat(len(rows), _columns(max(map(len, tails)))) if prefix else self._new_memory()
        self._read_into(memory, tails, known)
        return _Group(rows, memory)

    def _read_into(self, memory: Slots | Stack, texts: Sequence[Sequence[int]], known: int) -> None:
        longest = max(1, max(map(len, texts)))
        width = _columns(longest)
        mask = memory.begin([len(text) for text in texts], width)
        ids = torch.zeros(len(texts), width, dtype=torch.long)  # the padding id is arbitrary, the mask hides it
        for r, text in enumerate(texts):
            start = 0 if memory.joins else width - len(text)
            ids[r, start : start + len(text)] = torch.tensor(text, dtype=torch.long)
        # padding stands where the longest text ends: a model may have no position beyond
        places = torch.arange(known, known + width).clamp_max(known + longest - 1).expand(len(texts), -1)
        self._forward(memory, ids, places if memory.joins else (mask.cumsum(-1) - 1).clamp_min(0), mask)

    def _step(self, group: _Group) -> Tensor:
        """The logits [n, V] after each row's last token."""
        mask = group.memory.step()
        ids, positions = torch.zeros(len(mask), 1, dtype=torch.long), torch.zeros(len(mask), 1, dtype=torch.long)
        for r, row in enumerate(group.rows):
            ids[r, 0] = (row.written or row.prompt)[-1]
            positions[r, 0] = len(row) - 1
        return self._forward(group.memory, ids, positions, mask)[: len(group.rows)]

    def _forward(self, memory: Slots | Stack, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        device = self.model.device
        output = self.model(
            input_ids=ids.to(device),
            attention_mask=mask,
            position_ids=positions.to(device),
            past_key_values=memory.cache,
            use_cache=True,
            # an index, not the number 1: a slice of the hidden states is not contiguous, and torch then multiplies row
            # by row with a copy of the whole output matrix for each (half of the time of reading, and 57 MB a row)
            logits_to_keep=torch.tensor([ids.shape[1] - 1], device=device),
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _choose(
        self, group: _Group, logits: Tensor, limit: int, done: Callable[[int, Generation], None]
    ) -> _Group | None:
        """Append each row's next token; finished rows are told and leave the group, None if it is empty then."""
        if self.sampling is None:
            tokens = likeliest(logits)
        else:
            tokens = draw(logits, self.sampling, [self._uniform(row, self.sampling.seed) for row in group.rows])
        staying = []
        for r, (row, token) in enumerate(zip(group.rows, tokens, strict=True)):
            ended = token in self.stops
            if not ended:
                row.written.append(token)
            answered = not ended and self.stop_at_answer and self._is_answered(row.written)
            if ended or answered or len(row.written) >= limit:
                row.finished = True
                text = self.tokenizer.decode(row.written, skip_special_tokens=True)
                done(row.index, Generation(text, len(row.written) + ended, ended, not (ended or answered)))
            else:
                staying.append(r)
        if len(staying) == len(group.rows):
            return group
        return _Group([group.rows[r] for r in group.memory.keep(staying)], group.memory) if staying else None

    def _join(self, alive: _Group | None, group: _Group) -> _Group:
        if alive is None:
            return group
        assert isinstance(alive.memory, Slots) and isinstance(group.memory, Slots)
        alive.memory.join(group.memory, self.batch)
        return _Group(alive.rows + group.rows, alive.memory)

    def _uniform(self, row: _Row, seed: int) -> float:
        """The number that draws the row's next token; the stream goes on where it was if the row was cut off."""
        row.draws = row.draws or Draws(seed, row.seed, skip=len(row.written))
        return row.draws.next()

    def _is_answered(self, written: list[int]) -> bool:
        """Whether the closing statement is complete; looked at only where a token could complete it."""
        last = self.tokenizer.decode(written[-1:])
        if not any(mark in last for mark in ("}", "\n")) and "." not in self.tokenizer.decode(written[-2:]):
            return False
        return is_answered(self.tokenizer.decode(written, skip_special_tokens=True))


def _columns(tokens: int) -> int:
    """Columns to read for so many tokens: a multiple of READ, a BLOCK at least."""
    return max(BLOCK, -(-tokens // READ) * READ)


def _common_start(prompts: Sequence[list[int]]) -> int:
    """How many first tokens all prompts share, at least one of each left to read; 0 if too few to gain by."""
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)  # in dictionary order: what these two share, all share
    most = min(map(len, prompts)) - 1
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), most)
    return min(same, most) if min(same, most) >= SHARED_TOKENS else 0


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether this is the error of an allocation that failed, on the processor or on a device."""
    told = str(problem).lower()
    return isinstance(problem, MemoryError | torch.OutOfMemoryError) or any(words in told for words in _NO_MEMORY)
