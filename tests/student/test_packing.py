"""Packed weights give the products of the plain ones, for passes without gradient alone."""

import pytest
import torch

from mind_distill.student import packing
from mind_distill.student.packing import pack_weights

needs_bf16 = pytest.mark.skipif(not packing._supported(), reason="this processor has no bfloat16 products")


def layers(dtype: torch.dtype = torch.bfloat16) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return (
        torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.Linear(96, 32, bias=False))
        .to(dtype)
        .requires_grad_(False)
    )


@needs_bf16
@pytest.mark.parametrize("rows", [1, 7, 48])
def test_products_equal_the_plain_ones_and_a_row_does_not_depend_on_the_others(rows: int) -> None:
    model, x = layers(), torch.randn(rows, 64, dtype=torch.bfloat16)
    plain = model(x)
    pack_weights(model)
    with torch.inference_mode():
        packed = model(x)
        assert torch.allclose(packed, plain, atol=0.01, rtol=0.02)
        assert torch.equal(packed[:1], model(x[:1]))
    assert hasattr(model[0], "_packed") and model(x).equal(plain), "with gradients on, the plain product"


@needs_bf16
def test_a_weight_that_has_changed_is_packed_anew() -> None:
    model, x = layers(), torch.randn(3, 64, dtype=torch.bfloat16)
    pack_weights(model)
    pack_weights(model)
    with torch.no_grad():
        before = model(x)
        model[1].weight.mul_(-1)
        assert torch.equal(model(x), -before)


@pytest.mark.parametrize("why", ["float32", "too large", "no such processor"])
def test_other_models_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why == "too large":
        monkeypatch.setattr(packing, "MOST_BYTES", 100)
    if why == "no such processor":
        monkeypatch.setattr(packing, "_supported", lambda: False)
    model = layers(torch.float32 if why == "float32" else torch.bfloat16)
    pack_weights(model)
    assert all("forward" not in vars(layer) for layer in model)
