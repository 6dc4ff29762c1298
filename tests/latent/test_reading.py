"""Reading hidden states: independent of batch and padding, pooled as asked, refused where they are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mind_distill.errors import UserError
from mind_distill.latent.read import Text, batches, encode, rationale_of, read_batch, to_half
from mind_distill.records import Problem

WORDS = [
    "Two and three. That is five.",
    "Count on:\nthree, four, five.",
    "It is five",
    "Five! Because 2 + 3 makes 5. So.",
]


@pytest.fixture
def texts() -> list[Text]:
    return [Text(Problem(f"p{i}", f"{'Well, ' * i}2 + 3?", "5", "number"), "toy", w) for i, w in enumerate(WORDS)]


def read_all(student: Any, texts: list[Text], size: int, side: Any, pool: Any = "mean") -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for batch in batches(encode(student, texts, pool), size):
        rows = iter(read_batch(student, batch, side))
        found |= {one.text.problem.id: np.stack([next(rows) for _ in one.spans]) for one in batch}
    return found


@pytest.mark.parametrize("pool", ["mean", "last", "steps"])
def test_states_are_equal_across_batch_sizes_and_padding_sides(toy_student: Any, texts: list[Text], pool: str) -> None:
    alone = read_all(toy_student, texts, 1, "right", pool)
    for size, side in ((2, "right"), (4, "right"), (3, "left"), (4, "left")):
        together = read_all(toy_student, texts, size, side, pool)
        assert together.keys() == alone.keys()
        for key in alone:
            np.testing.assert_allclose(together[key], alone[key], atol=1e-5, rtol=0)


def test_a_state_is_what_the_model_gives_after_its_final_norm(toy_student: Any, texts: list[Text]) -> None:
    (one,) = encode(toy_student, texts[:1], "mean")
    with torch.inference_mode():
        output = toy_student.model(input_ids=torch.tensor([[*one.prompt, *one.body]]), output_hidden_states=True)
    expected = output.hidden_states[-1][0, len(one.prompt) :].mean(0).numpy()
    np.testing.assert_allclose(read_batch(toy_student, [one])[0], expected, atol=1e-6)
    last = encode(toy_student, texts[:1], "last")
    np.testing.assert_allclose(read_batch(toy_student, last)[0], output.hidden_states[-1][0, -1].numpy(), atol=1e-6)


def test_steps_are_sentences_and_lines_and_cover_every_token_once(toy_student: Any, texts: list[Text]) -> None:
    encoded = encode(toy_student, texts, "steps")
    assert [one.parts for one in encoded] == [
        ["Two and three.", "That is five."],
        ["Count on:", "three, four, five."],
        ["It is five"],
        ["Five!", "Because 2 + 3 makes 5.", "So."],
    ]
    for one in encoded:
        assert one.spans[0][0] == 0 and one.spans[-1][1] == len(one.body)
        assert all(a[1] == b[0] for a, b in zip(one.spans, one.spans[1:], strict=False))


def test_the_rationale_is_what_stands_before_the_closing_statement() -> None:
    assert rationale_of("Two and three.\n\nThe answer is 5.") == "Two and three."
    assert rationale_of("The answer is 5.") == "The answer is 5.", "where nothing else was said"
    assert rationale_of(" \n") == ""


def test_states_that_are_not_finite_are_refused_with_the_problem_named() -> None:
    rows = np.zeros((3, 2), np.float32)
    assert to_half(rows, "m", ["a", "b", "c"]).dtype == np.float16
    rows[1, 0] = np.nan
    with pytest.raises(UserError, match="specialist:planning: .*problem 'b' are not finite"):
        to_half(rows, "specialist:planning", ["a", "b", "c"])
    rows[1, 0] = 1e6
    with pytest.raises(UserError, match="too large for fp16"):
        to_half(rows, "m", ["a", "b", "c"])


def test_a_text_longer_than_the_student_reads_is_refused(toy_student: Any) -> None:
    long = Text(Problem("p", "2 + 3?", "5", "number"), "toy", "more " * 300)
    with pytest.raises(UserError, match="problem 'p' has .* reads at most 1024.*'tokens'"):
        encode(toy_student, [long], "mean")
