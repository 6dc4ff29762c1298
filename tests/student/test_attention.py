"""Attention over short rows equals torch's fused one, and is used where it is meant to be."""

from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from mind_distill.records import Path
from mind_distill.student import attention
from mind_distill.student.attention import attend, short_rows
from mind_distill.tasks.prompts import answer_segment
from tests.conftest import toy_model


class Layer(torch.nn.Module):
    num_key_value_groups = 3
    is_causal = True


def inputs(keys: int, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = [(2, 6, 11, 8), (2, 2, keys, 8), (2, 2, keys, 8)]
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_outputs_and_gradients_equal_the_fused_kernels(masked: bool, dtype: torch.dtype, apart: float) -> None:
    keys = 17 if masked else 11
    mask = (torch.rand(2, 1, 11, keys) < 0.6) | torch.eye(11, keys, dtype=torch.bool) if masked else None
    found = []
    for way in (attend, sdpa_attention_forward):
        parts = inputs(keys, dtype)
        mixed = way(Layer(), *parts, mask, scaling=0.3)[0]
        (mixed * torch.linspace(-1, 1, mixed.numel(), dtype=dtype).view_as(mixed)).sum().backward()
        found.append([mixed.detach(), *(part.grad for part in parts)])
    assert all(torch.allclose(own, fused, atol=apart, rtol=apart) for own, fused in zip(*found, strict=True))


def test_long_rows_are_left_to_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = inputs(11, torch.bfloat16)
    fused = sdpa_attention_forward(Layer(), query, key, value, None)[0]
    assert not torch.equal(attend(Layer(), query, key, value, None)[0], fused), "rounded elsewhere"
    monkeypatch.setattr(attention, "MOST_SCORES", 2 * 6 * 11 * 11 - 1)
    assert torch.equal(attend(Layer(), query, key, value, None)[0], fused)


def test_only_a_model_with_fused_attention_is_changed_and_only_meanwhile() -> None:
    core = toy_model()
    with short_rows(core):
        assert core.config._attn_implementation == attention.NAME
    assert core.config._attn_implementation == "sdpa"
    core.config._attn_implementation = "eager"
    with short_rows(core):
        assert core.config._attn_implementation == "eager"


def test_a_reading_goes_through_it(toy_student: Any, toy_corpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        attention, "attend", lambda *given, **more: seen.append(given[1].shape) or attend(*given, **more)
    )
    student = toy_student
    lesson = next(iter(toy_corpus))
    paths = [Path(k, r.id, r.body, answer_segment(lesson.problem, "sentence")) for k, r in enumerate(lesson.rationales)]
    student.read(student.lay_out([lesson], [paths]))
    layers = student.model.config.num_hidden_layers
    assert len(seen) == 4 * layers, "the prompt, then eight rows, three at a time"
