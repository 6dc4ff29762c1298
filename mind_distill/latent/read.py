"""Hidden states of rationales (section 3.2): what a student's last layer holds, after the final norm, while it reads one.

The rationale is the text before its closing answer statement; prompt and rationale are tokenised apart, as in training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mind_distill.errors import UserError
from mind_distill.records import Problem
from mind_distill.student.load import Student
from mind_distill.tasks.prompts import find_body_end

Pool = Literal["mean", "last", "steps"]
Side = Literal["right", "left"]
_STEP_END = re.compile(r"(?<=[.!?])\s+|\n+")


class Text(NamedTuple):
    """One rationale to read: the problem it is about, where that stands, and the words."""

    problem: Problem
    benchmark: str
    rationale: str


class Encoded(NamedTuple):
    """A rationale as tokens; each span [start, end) of them becomes one row, and stands for a part of the words."""

    text: Text
    prompt: list[int]
    body: list[int]
    spans: list[tuple[int, int]]
    parts: list[str]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.body)


def rationale_of(answer: str) -> str:
    """The reasoning in a student's answer; all of it where nothing stands before the closing statement, "" for no words."""
    return answer[: find_body_end(answer)].strip() or answer.strip()


def encode(student: Student, texts: Sequence[Text], pool: Pool, cue: str | None = None) -> list[Encoded]:
    """The rationales as tokens. A UserError names one that is longer than the student reads."""
    found = []
    for text in texts:
        prompt = student.layout.encode_prompt(text.problem, cue)
        coded = student.tokenizer(text.rationale, add_special_tokens=False, return_offsets_mapping=True)
        body: list[int] = coded["input_ids"]
        assert body, "a text without words is left out before"
        if len(prompt) + len(body) > student.layout.max_tokens:
            raise UserError(
                f"The text to problem '{text.problem.id}' has {len(prompt) + len(body)} tokens with its question; the student "
                f"reads at most {student.layout.max_tokens}. Set a smaller 'tokens'."
            )
        spans, parts = _spans(text.rationale, coded["offset_mapping"], pool)
        found.append(Encoded(text, prompt, body, spans, parts))
    return found


def _spans(words: str, offsets: Sequence[tuple[int, int]], pool: Pool) -> tuple[list[tuple[int, int]], list[str]]:
    count = len(offsets)
    if pool != "steps":
        return [(0, count) if pool == "mean" else (count - 1, count)], [words]
    spans, parts, start = list[tuple[int, int]](), list[str](), 0
    ends = [match.start() for match in _STEP_END.finditer(words)] + [len(words)]
    for begun, end in zip([0, *ends], ends, strict=False):
        stop = next((i for i in range(start, count) if offsets[i][1] > end), count)
        if stop > start and words[begun:end].strip():
            spans.append((start, stop))
            parts.append(words[begun:end].strip())
            start = stop
    return spans, parts


def batches(encoded: Sequence[Encoded], size: int) -> list[list[Encoded]]:
    """The rationales in batches of at most `size`, the longest first, so that little is padded."""
    ordered = sorted(encoded, key=len, reverse=True)
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


@torch.inference_mode()
def read_batch(student: Student, batch: Sequence[Encoded], side: Side = "right") -> np.ndarray:
    """One row [d] in float32 for each span of each rationale, in order: the mean of the states of its tokens.

    Padding stands on the right, where causal attention never sees it; on the left it is masked.
    """
    width = max(map(len, batch))
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    mask = torch.zeros(len(batch), width, dtype=torch.long)
    starts = [0 if side == "right" else width - len(one) for one in batch]
    for r, (one, start) in enumerate(zip(batch, starts, strict=True)):
        ids[r, start : start + len(one)] = torch.tensor([*one.prompt, *one.body])
        mask[r, start : start + len(one)] = 1
    states = _last_states(student, ids, mask if side == "left" else None)
    rows = []
    for r, (one, start) in enumerate(zip(batch, starts, strict=True)):
        first = start + len(one.prompt)
        rows += [states[r, first + a : first + b].float().mean(0) for a, b in one.spans]
    found: np.ndarray = torch.stack(rows).cpu().numpy()
    return found


def _last_states(student: Student, ids: Tensor, mask: Tensor | None) -> Tensor:
    """[R, T, D] after the final norm."""
    model: Any = student.model
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    device = student.device
    masked: dict[str, Tensor] = {}
    if mask is not None:
        places = (mask.cumsum(-1) - 1).clamp_min(0)
        masked = {"attention_mask": mask.to(device), "position_ids": places.to(device)}
    states: Tensor = core.base_model(input_ids=ids.to(device), use_cache=False, **masked).last_hidden_state
    return states


def to_half(rows: np.ndarray, model: str, ids: Sequence[str]) -> np.ndarray:
    """The rows as they are stored. A UserError names the problem whose states are not finite, or too large for fp16."""
    with np.errstate(over="ignore"):
        half = rows.astype(np.float16)
    wrong = np.flatnonzero(~np.isfinite(half).all(axis=1))
    if len(wrong):
        what = "are not finite" if not np.isfinite(rows[wrong[0]]).all() else "are too large for fp16 (over 65504)"
        raise UserError(
            f"{model}: the hidden states of the text to problem '{ids[int(wrong[0])]}' {what}. Leave this run out, or train it "
            "again."
        )
    return half
